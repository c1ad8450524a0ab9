"""Many connections of one process that listen, raw sockets on an event loop: as light as Python can be.

The same protocol reads both sides, server-sent events and Redis' own messages: it looks for the number of the message
and stamps the time. So what differs between two runs is who sends.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import cast

_NUMBER = re.compile(rb'"message":"(\d+)"')
_LONGEST = 64  # bytes of a number that came in two pieces


class Heard:
    """What all connections of a run have heard; times are seconds of ``perf_counter``."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.delays: list[float] = []
        self.expected = 0
        self.all = asyncio.Event()

    def expect(self, deliveries: int) -> None:
        self.expected, self.delays = deliveries, []
        self.sent.clear()
        self.all.clear()


class Listener(asyncio.Protocol):
    """One connection: sends ``request``, is ``ready`` once ``until`` has come, and counts from then on."""

    def __init__(self, request: bytes, until: bytes, heard: Heard) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False
        self.numbers = 0
        self._request, self._until, self._heard = request, until, heard
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass of it
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now, heard = time.perf_counter(), self._heard
        data = self._tail + data if self._tail else data
        if not self.ready.done():
            if self._until in data:
                self.ready.set_result(None)
            self._tail = data[-_LONGEST:]
            return
        at = 0
        for found in _NUMBER.finditer(data):
            at = found.end()
            self.numbers += 1
            heard.delays.append(now - heard.sent[int(found[1])])
        self._tail = data[max(at, len(data) - _LONGEST) :]
        if len(heard.delays) >= heard.expected:
            heard.all.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(error or ConnectionError(self._tail.decode(errors="replace")))


async def opened(
    host: str, port: int, requests: Sequence[bytes], until: bytes, heard: Heard, at_once: int = 32
) -> list[Listener]:
    """A connection for each request, all of them ready."""
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(at_once)

    async def one(request: bytes) -> Listener:
        async with room:
            _, listener = await loop.create_connection(lambda: Listener(request, until, heard), host, port)
            async with asyncio.timeout(20):
                await listener.ready
            return listener

    return list(await asyncio.gather(*map(one, requests)))

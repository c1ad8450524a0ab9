"""A TCP proxy that stands before a server and does what networks do: slow, narrow, deaf, cut, gone, answers lost.

    with Proxy(redis_port) as proxy:
        ... proxy.port ...
        proxy.faults.latency = 0.2
        proxy.reset()

One thread with an event loop of its own; everything may be called from any other thread.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

CHUNK = 64 * 1024
POLL_SECONDS = 0.01  # of a connection that hangs

T = TypeVar("T")


@dataclass
class Faults:
    """What is wrong; assign at any moment. It counts for connections that are open already, too."""

    latency: float = 0.0  # seconds, for each piece and in each direction
    bytes_per_second: float | None = None  # of each connection in each direction
    hang: bool = False  # connections are accepted and nothing is forwarded; what was read before is kept
    drop_after: int | None = None  # a connection is reset once it has carried so many bytes, both ways together
    lose_answers: int = 0  # so many answers are lost: the server has acted, its client's connection is reset
    lose_answer_to: bytes = b""  # only answers to a request in which these bytes stand
    endless: int = 0  # bytes without an end of line that come before such an answer, which is not lost then
    refuse_after_loss: bool = False  # with the lost answer the server is gone: as after ``refuse``


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    carried: int = 0
    asked: bool = False  # what `lose_answer_to` names has gone to the server
    tail: bytes = field(default=b"", repr=False)

    def reset(self) -> None:
        """RST to both sides: closing with a linger of zero throws away what is under way."""
        for writer in (self.client, self.server):
            connection: socket.socket | None = writer.get_extra_info("socket")
            if connection is not None and connection.fileno() >= 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Stands before 127.0.0.1:``upstream`` as long as its block lasts."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.faults = Faults()
        self.connections = 0  # accepted so far
        self.lost = 0  # answers lost so far
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{upstream}", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._call(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open(self) -> int:
        """The connections that are open now."""
        return len(self._links)

    def reset(self) -> None:
        """Reset every open connection; new ones are taken."""
        self._call(self._reset)

    def refuse(self) -> None:
        """Connections are refused, open ones are reset, until ``heal``."""

        async def refusing() -> None:
            await self._stop_listening()
            await self._reset()

        self._call(refusing)

    def heal(self) -> None:
        """No faults any more."""
        self.faults = Faults()
        self._call(self._listen)

    def _call(self, work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout=10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=256)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _close(self) -> None:
        await self._stop_listening()
        await self._reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # an aborted transport closes its socket in the loop's next round

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            # Cancelled only by our own end; swallowed, because a cancelled callback of a server is logged as a failure.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._go_on()
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:  # what ends one with an error ends the other
                pumps.create_task(self._pump(link, reader, server_writer, self._to_server))
                pumps.create_task(self._pump(link, server_reader, writer, self._to_client))
        except* OSError:
            pass
        finally:
            self._links.discard(link)
            link.server.transport.abort()

    async def _go_on(self) -> None:
        while self.faults.hang:  # noqa: ASYNC110 - an attribute that any thread may set, so there is no event to await
            await asyncio.sleep(POLL_SECONDS)

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passes: Callable[[_Link, bytes], bool],
    ) -> None:
        while piece := await reader.read(CHUNK):
            faults = self.faults
            if faults.latency:
                await asyncio.sleep(faults.latency)
            await self._go_on()
            if not passes(link, piece):
                link.reset()
                return
            if faults.bytes_per_second:
                await self._trickle(piece, writer, faults.bytes_per_second)
            else:
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):  # gone already
            writer.write_eof()

    async def _trickle(self, piece: bytes, writer: asyncio.StreamWriter, rate: float) -> None:
        portion = max(1, int(rate / 20))
        for start in range(0, len(piece), portion):
            writer.write(piece[start : start + portion])
            await writer.drain()
            await asyncio.sleep(portion / rate)

    def _to_server(self, link: _Link, piece: bytes) -> bool:
        wanted = self.faults.lose_answer_to
        seen = link.tail + piece  # the bytes may be cut in two by the network
        link.asked = link.asked or (bool(wanted) and wanted in seen)
        link.tail = seen[-len(wanted) :] if wanted else b""
        return self._counted(link, piece)

    def _to_client(self, link: _Link, piece: bytes) -> bool:
        if self.faults.lose_answers > 0 and (link.asked or not self.faults.lose_answer_to):
            self.faults = replace(self.faults, lose_answers=self.faults.lose_answers - 1)
            self.lost += 1
            if self.faults.endless:
                link.asked = False  # the answer may come in several pieces
                link.client.write(b"* 1 FETCH (" + b"x" * self.faults.endless)
                return True
            if self.faults.refuse_after_loss and self._server is not None:
                self._server.close()
                self._server = None
                for other in list(self._links):
                    other.reset()
            return False
        link.asked = False
        return self._counted(link, piece)

    def _counted(self, link: _Link, piece: bytes) -> bool:
        link.carried += len(piece)
        return self.faults.drop_after is None or link.carried <= self.faults.drop_after

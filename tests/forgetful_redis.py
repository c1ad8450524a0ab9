"""A proxy before Redis that loses some of what is published, as Redis itself may, and nothing else."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tests.faults.proxy import Proxy

_MESSAGES = (b"*3\r\n$7\r\nmessage\r\n", b">3\r\n$7\r\nmessage\r\n")  # RESP2 and RESP3


class ForgetfulRedis(Proxy):
    """Loses each message of a subscription with the probability ``share``."""

    def __init__(self, upstream: int, share: float) -> None:
        super().__init__(upstream)
        self.share = share
        self.dropped = self.passed = 0
        self._dice = random.Random(1)

    async def _pump(
        self,
        link: Any,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passes: Callable[[Any, bytes], bool],
    ) -> None:
        if passes != self._to_client:
            await super()._pump(link, reader, writer, passes)
            return
        while True:
            try:
                whole = await reply(reader)
            except asyncio.IncompleteReadError:
                break
            if whole.startswith(_MESSAGES):
                if self._dice.random() < self.share:
                    self.dropped += 1
                    continue
                self.passed += 1
            writer.write(whole)
            await writer.drain()
        link.reset()


async def reply(reader: asyncio.StreamReader) -> bytes:
    """One reply, whole, as it came (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    line = await reader.readuntil(b"\r\n")
    kind, count = line[:1], line[1:-2]
    if kind in b"$=!" and int(count) >= 0:
        return line + await reader.readexactly(int(count) + 2)
    if kind in b"*>~%|":
        items = max(0, int(count)) * (2 if kind in b"%|" else 1)
        return line + b"".join([await reply(reader) for _ in range(items)])
    return line

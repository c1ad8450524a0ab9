"""A file on its way: pieces are joined to chunks worth sending, and what they tell about the whole is gathered."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from domain.files import SNIFF_BYTES

# Large enough that the cost per chunk (h11, the event loop) vanishes, small enough that many uploads fit in memory.
CHUNK_BYTES = 512 * 1024


class Intake:
    """Reads a file once; ``size`` and ``sha256`` are of what has been read so far."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.size = 0
        self._pieces = pieces
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ended = False
        self._hash = hashlib.sha256()
        self._hashing: asyncio.Future[None] | None = None

    async def head(self) -> bytes:
        """The first bytes (up to 4 KiB), to be read again by ``read``."""
        await self._fill(SNIFF_BYTES)
        return b"".join(self._held)[:SNIFF_BYTES]

    async def read(self, most: int) -> bytes:
        """The next chunk of at most ``most`` bytes; empty at the end of the file."""
        if most <= 0:
            return b""
        await self._fill(min(most, CHUNK_BYTES))
        chunk = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes = [], 0
        if len(chunk) > most:
            rest = chunk[most:]
            self._held, self._held_bytes = [rest], len(rest)
            chunk = chunk[:most]
        await self._digest(chunk)
        return chunk

    async def sha256(self) -> str:
        await self._digest(b"")
        return self._hash.hexdigest()

    async def _fill(self, wanted: int) -> None:
        while self._held_bytes < wanted and not self._ended:
            piece = await anext(self._pieces, None)
            if piece is None:
                self._ended = True
            elif piece:
                self._held.append(piece)
                self._held_bytes += len(piece)

    async def _digest(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._hashing is not None:
            await self._hashing
            self._hashing = None
        if len(chunk) < 64 * 1024:
            self._hash.update(chunk)
        else:
            # hashlib lets go of the GIL: the second core hashes this chunk while the first sends it
            self._hashing = asyncio.get_running_loop().run_in_executor(None, self._hash.update, chunk)

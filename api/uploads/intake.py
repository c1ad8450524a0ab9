"""A file on its way: pieces are joined to chunks worth sending, and what they tell about the whole is gathered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from api.objects import gateway
from domain.archives.walking import Walker
from domain.digests import Announced, Digests
from domain.files import SNIFF_BYTES

# Large enough that the cost per chunk (h11, the event loop) vanishes, small enough that many uploads fit in memory.
CHUNK_BYTES = 512 * 1024
SMALLEST_CHUNK = 64 * 1024
AT_ONCE_BYTES = 8 * 1024**2  # of the chunks of all uploads of this process


class Intake:
    """Reads a file once; ``size`` and ``sha256`` are of what has been read so far."""

    def __init__(self, pieces: AsyncIterator[bytes], wanted: Sequence[Announced] = ()) -> None:
        """``wanted`` is what the client says of the file's bytes, to be checked at the end."""
        self.size = 0
        self._wanted = wanted
        self._pieces = pieces
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ended = False
        self._walker = Walker()
        self._digesting = Digesting("sha-256", *(one.algorithm for one in wanted), also=self._walker.feed)

    async def head(self) -> bytes:
        """The first bytes (up to 4 KiB), to be read again by ``read``."""
        await self._fill(SNIFF_BYTES)
        return b"".join(self._held)[:SNIFF_BYTES]

    async def read(self, most: int) -> bytes:
        """The next chunk of at most ``most`` bytes; empty at the end of the file."""
        if most <= 0:
            return b""
        fair = AT_ONCE_BYTES // max(1, gateway().uploads)
        await self._fill(min(most, CHUNK_BYTES, max(fair, SMALLEST_CHUNK)))
        chunk = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes = [], 0
        if len(chunk) > most:
            rest = chunk[most:]
            self._held, self._held_bytes = [rest], len(rest)
            chunk = chunk[:most]
        self.size += len(chunk)
        await self._digesting.update(chunk)
        return chunk

    async def local_headers(self) -> str | None:
        """Of an archive: what its members' own headers say, for the inspection to compare."""
        await self._digesting.whole()
        return self._walker.seen

    async def sha256(self) -> str:
        return (await self._digesting.whole()).hexdigest("sha-256")

    async def check(self) -> None:
        """Raises DigestMismatch when what was read is not what the client announced."""
        (await self._digesting.whole()).check(self._wanted)

    async def _fill(self, wanted: int) -> None:
        while self._held_bytes < wanted and not self._ended:
            piece = await anext(self._pieces, None)
            if piece is None:
                self._ended = True
            elif piece:
                self._held.append(piece)
                self._held_bytes += len(piece)


class Digesting:
    """Hashes what passes by while the caller goes on; one chunk at a time."""

    def __init__(self, *algorithms: str, also: Callable[[bytes], None] | None = None) -> None:
        """``also`` is given every chunk, too."""
        self._digests = Digests(algorithms)
        self._also = also
        self._under_way: asyncio.Future[None] | None = None

    async def update(self, chunk: bytes) -> None:
        await self.whole()
        if len(chunk) < 64 * 1024:
            self._take(chunk)
        else:
            # hashlib lets go of the GIL: the second core hashes this chunk while the first sends it
            self._under_way = asyncio.get_running_loop().run_in_executor(None, self._take, chunk)

    def _take(self, chunk: bytes) -> None:
        self._digests.update(chunk)
        if self._also is not None:
            self._also(chunk)

    async def whole(self) -> Digests:
        """Of all that was given."""
        if self._under_way is not None:
            await self._under_way
            self._under_way = None
        return self._digests

"""One request's bytes of a resumable upload, cut into parts: one is sent to the store while the next fills.

When the client stops, for whatever reason, what is held becomes the tail. So the offset a client is told after a broken
connection is what it has sent, and after a killed process what was noted last. Two parts are held in memory at most,
and the second only while there is room to spare for other clients' first ones.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from api.objects import Gateway, blocking, unbroken
from api.room import SPARE_BYTES
from api.uploads import digests
from api.uploads.progress import Batch, Progress
from domain.errors import MillraceError
from domain.errors.neighbours import StorageUnavailable
from domain.errors.uploads import StorageQuotaExceeded, UploadLocked, UploadOffsetMismatch
from storage.configuration import settings
from storage.uploads import receiving
from storage.uploads.content import Content
from storage.uploads.receiving import Held, Standing

BEAT_SECONDS = 1.0  # at most, between two heartbeats; who asks for the upload waits for two

log = structlog.get_logger(__name__)


class Keeper:
    """Takes the bytes that follow ``standing.received`` and keeps them."""

    def __init__(self, gate: Gateway, held: Held, standing: Standing) -> None:
        self._room = gate.room
        self._standing = standing
        self._progress = Progress(gate, held, standing)
        self.received = standing.received
        self._filling = Batch(self._progress.tail)
        self._under_way: asyncio.Task[None] | None = None  # one that failed stays here
        self._reading: asyncio.Timeout | None = None
        self._stopped = False
        self.pieces = 0

    def heard(self) -> None:
        """Bytes have come."""
        self.pieces += 1

    async def reserve(self, received: int) -> None:
        """Before anything is sent to the store that would have to be taken back. Raises StorageQuotaExceeded."""
        await self._progress.reserve(received)

    @property
    def whole(self) -> bool:
        return self._progress.kept == self._standing.length

    def stop(self) -> None:
        """Read no more: somebody else goes on with the upload."""
        self._stopped = True
        self._wake()

    def content(self) -> Content | None:
        """What is known of the whole, where this process has seen all of it."""
        return self._progress.known if self.whole else None

    async def keep(self, pieces: AsyncIterator[bytes]) -> None:
        """Take everything, and keep it up to where ``pieces`` end or fail.

        Raises:
            StorageUnavailable: the store refused or broke off; what was noted before stays.
            UploadLocked: another request has the upload now.
            UploadOffsetMismatch: the store has lost what it had, and the upload begins anew at 0.
            StorageQuotaExceeded: its length is not known, and there is no room for more; what was noted before stays.
            ClientGone, BodyTooLarge: as the pieces raise them; what came before is kept.
        """
        try:
            while (piece := await self._next(pieces)) is not None:
                await self._take(piece)
        except (StorageUnavailable, StorageQuotaExceeded, UploadOffsetMismatch):
            raise
        except BaseException:
            await unbroken(self._flush())
            raise
        else:
            await unbroken(self._flush())
        finally:
            await unbroken(self._leave())

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        if self._stopped:
            raise UploadLocked(retry_after=1)
        if self._under_way is not None and self._under_way.done():
            await self._settle()
        try:
            async with asyncio.timeout(None) as self._reading:
                piece = await anext(pieces, None)
        except TimeoutError:
            await self._settle()
            raise UploadLocked(retry_after=1) from None
        finally:
            self._reading = None
        self.heard()
        return piece

    async def _take(self, piece: bytes) -> None:
        while piece:
            missing = self._standing.part_size - self._filling.size
            now, piece = (piece, b"") if len(piece) <= missing else (piece[:missing], piece[missing:])
            await self._make_room(len(now))
            self._filling.add(now)
            self.received += len(now)
            if self._filling.size == self._standing.part_size:
                await self._settle()
                self._send_off(self._filling)

    async def _make_room(self, size: int) -> None:
        if self._room.try_take(size, SPARE_BYTES if self._under_way else 0):
            return
        if self._under_way is not None:
            await self._settle()
            if self._room.try_take(size):
                return
        await unbroken(self._flush())  # before waiting: what is held, others may be waiting for
        await self._room.take(size)

    # ------------------------------------------------------------ to the store

    def _send_off(self, batch: Batch) -> None:
        """Begin to send a full part; the next one fills meanwhile."""
        self._filling = Batch()
        self._under_way = asyncio.create_task(self._write_part(batch))
        self._under_way.add_done_callback(self._look_up)

    def _look_up(self, ended: "asyncio.Task[None]") -> None:
        if ended.cancelled() or ended.exception() is not None:
            self._wake()  # what has failed need not wait for the client's next piece

    def _wake(self) -> None:
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def _settle(self) -> None:
        """Wait for what is on its way, and raise what it has failed with, whenever it is asked for again."""
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
            self._under_way.result()
            self._under_way = None

    async def _flush(self) -> None:
        """Keep what is held, as a part or as the tail; a request without bytes may still bring the length."""
        await self._settle()
        batch = self._filling
        full = batch.size == self._standing.part_size
        if batch.held and (full or (self._progress.parts and self.received == self._standing.length)):
            await self._write_part(batch)
        elif batch.held:
            await self._progress.write_tail(batch)
            self._room.give(batch.held)
        elif not self._progress.noted:
            await self._progress.note(0, self._progress.tail)
        self._filling = Batch(self._progress.tail)

    async def _write_part(self, batch: Batch) -> None:
        try:
            await self._progress.write_part(batch)
        finally:
            self._room.give(batch.held)
            batch.held = 0

    async def _leave(self) -> None:
        if self._under_way is not None:  # after an error; what it fails with is not the first thing that went wrong
            await asyncio.wait([self._under_way])
        self._room.give(self._filling.held)
        if (known := self._progress.known) is not None and not self.whole:
            digests.remember(self._standing.id, self._progress.kept, known)


@asynccontextmanager
async def beating(held: Held, keeper: Keeper) -> AsyncIterator[None]:
    """Hold on to the claim for the block; let go when somebody asks for the upload and no bytes come meanwhile."""
    heart = asyncio.create_task(_beat(held, keeper))
    try:
        yield
    finally:
        heart.cancel()
        with suppress(asyncio.CancelledError):
            await heart


async def _beat(held: Held, keeper: Keeper) -> None:
    asked: int | None = None  # how many pieces there were when somebody was seen to ask
    while True:
        await asyncio.sleep(min(BEAT_SECONDS, settings().lease_seconds / 4))
        try:
            answer = await blocking(receiving.beat, held)
            if answer == "held":
                asked = None
            elif answer == "lost" or asked == keeper.pieces:
                keeper.stop()
            elif asked is None:
                asked = keeper.pieces
            else:
                await blocking(receiving.deny, held)
                asked = None
        except MillraceError as error:
            log.warning("upload_not_held", upload_id=str(held.id), error=error.code)

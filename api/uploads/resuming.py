"""One request's bytes of a resumable upload: into parts, what fills no part into a tail, each noted once it is kept.

At most one part is held in memory. A part goes to the store when it is full; when the client stops, for whatever
reason, what is held becomes the tail, an object of its own that is put before the next bytes. So the offset a client is
told after a broken connection is what it has sent, and after a killed process what was noted last.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from api.objects import Gateway, blocking, unbroken
from api.uploads import digests
from api.uploads.intake import CHUNK_BYTES
from api.uploads.parts import URL_SECONDS, send
from domain.errors import MillraceError
from domain.errors.neighbours import StorageUnavailable
from domain.errors.uploads import StorageQuotaExceeded, UploadLocked, UploadOffsetMismatch
from domain.files import SNIFF_BYTES, content_type_of
from domain.identity import new_id
from domain.uploads import metadata, name_of, type_of
from storage import discarding, objects, quotas
from storage.configuration import settings
from storage.uploads import receiving
from storage.uploads.content import Content, joined
from storage.uploads.receiving import Held, Standing

BEAT_SECONDS = 1.0  # at most, between two heartbeats; who asks for the upload waits for two

log = structlog.get_logger(__name__)


class Keeper:
    """Takes the bytes that follow ``standing.received`` and keeps them."""

    def __init__(self, gate: Gateway, held: Held, standing: Standing) -> None:
        self._gate = gate
        self._room = gate.room
        self._held = held
        self._standing = standing
        self.received = standing.received
        self.kept = standing.received  # of these, in the store and noted
        self._parts = standing.parts
        self._multipart_id = standing.multipart_id
        self._tail = (standing.tail_key, standing.tail_size) if standing.tail_key else None
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._known = digests.at(standing.id, standing.received)
        self._reading: asyncio.Timeout | None = None
        self._ahead = self._known  # of what is sent and not noted yet
        self._noted = False
        self._stopped = False
        self.pieces = 0

    def heard(self) -> None:
        """Bytes have come."""
        self.pieces += 1

    async def reserve(self, received: int) -> None:
        """Before anything is sent to the store that would have to be taken back. Raises StorageQuotaExceeded."""
        if self._standing.length is None and quotas.limited():
            await blocking(receiving.reserve, self._standing, received)

    @property
    def whole(self) -> bool:
        return self.kept == self._standing.length

    def stop(self) -> None:
        """Read no more: somebody else goes on with the upload."""
        self._stopped = True
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())

    def content(self) -> Content | None:
        """What is known of the whole, where this process has seen all of it."""
        return self._known if self.whole else None

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
            self._room.give(self._buffered)
            if self._known is not None and not self.whole:
                digests.remember(self._standing.id, self.kept, self._known)

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        if self._stopped:
            raise UploadLocked(retry_after=1)
        try:
            async with asyncio.timeout(None) as self._reading:
                piece = await anext(pieces, None)
        except TimeoutError:
            raise UploadLocked(retry_after=1) from None
        finally:
            self._reading = None
        self.heard()
        return piece

    async def _take(self, piece: bytes) -> None:
        while piece:
            missing = self._standing.part_size - self._tail_size - self._buffered
            now, piece = (piece, b"") if len(piece) <= missing else (piece[:missing], piece[missing:])
            if not self._room.try_take(len(now)):
                await unbroken(self._flush())  # before waiting: what is held, others may be waiting for
                await self._room.take(len(now))
            self._buffer.append(now)
            self._buffered += len(now)
            self.received += len(now)
            if len(now) == missing:
                await unbroken(self._write_part())

    @property
    def _tail_size(self) -> int:
        return self._tail[1] if self._tail else 0

    # ------------------------------------------------------------ to the store

    async def _flush(self) -> None:
        """Keep what is held, as the last part or as the tail; a request without bytes may still bring the length."""
        if self._buffered and self._parts and self.received == self._standing.length:
            await self._write_part()
        elif self._buffered:
            await self._write_tail()
        elif not self._noted:
            await self._note(self._tail)

    async def _write_part(self) -> None:
        await self.reserve(self.received)
        if self._multipart_id is None:
            self._multipart_id = await blocking(
                objects.create_multipart, self._standing.object_key, await self._content_type()
            )
        number = self._parts + 1
        url = objects.presign_part(self._standing.object_key, self._multipart_id, number, URL_SECONDS)
        etag = await self._send(url, {})
        await self._note(None, (number, etag))
        self._parts = number

    async def _write_tail(self) -> None:
        await self.reserve(self.received)
        key, content_type = objects.input_key(new_id()), await self._content_type()
        size = self._tail_size + self._buffered
        url = objects.presign_put(key, URL_SECONDS, content_type)
        await self._send(url, {"Content-Type": content_type})
        await self._note((key, size))

    async def _note(self, tail: tuple[str, int] | None, part: tuple[int, str] | None = None) -> None:
        """Everything received is in the store; tell the database."""
        await blocking(
            receiving.keep,
            self._held,
            received=self.received,
            length=self._standing.length,
            multipart_id=self._multipart_id,
            tail=tail,
            part=part,
        )
        self.kept, self._noted, self._known = self.received, True, self._ahead
        before, self._tail = self._tail, tail
        self._buffer.clear()
        self._room.give(self._buffered)
        self._buffered = 0
        if before is not None and before != tail:
            await blocking(discarding.discard, [before[0]])

    async def _send(self, url: str, headers: dict[str, str]) -> str:
        """PUT the tail and what is held; the ETag. The digest is taken meanwhile: hashlib lets go of the GIL."""
        size = self._tail_size + self._buffered
        sending = self._sent(url, size, headers)
        content, self._ahead = self._known, None
        self._known = None  # unknown, unless all of it goes well
        if content is None:
            return await sending
        etag, _ = await asyncio.gather(sending, blocking(content.update, self._buffer))
        self._ahead = content
        return etag

    async def _sent(self, url: str, size: int, headers: dict[str, str]) -> str:
        for last in (False, True):
            try:
                return await send(self._gate, self._standing.object_key, url, self._content(), size, headers)
            except StorageUnavailable as error:
                if error.details.get("status") not in (404, 501) and not last:
                    continue
                if await self._is_lost(error.details.get("status")):
                    log.warning("upload_begins_anew", upload_id=str(self._held.id), key=self._standing.object_key)
                    await blocking(receiving.reset, self._held)
                    raise UploadOffsetMismatch(offset=0, field="Upload-Offset") from error
                raise
        raise AssertionError

    async def _is_lost(self, status: int | None) -> bool:
        """Whether nothing can follow what was kept: the store has lost it, or holds other bytes than those to come.

        501 is what `rclone serve s3` answers to other bytes for a part it has, which a killed process may have left. A
        store that refuses early may break the connection instead of answering, so it is asked.
        """
        if status in (404, 501):
            return True
        key, multipart_id = self._standing.object_key, self._multipart_id
        return multipart_id is not None and not await blocking(objects.knows_multipart, key, multipart_id)

    async def _content(self) -> AsyncIterator[bytes]:
        if self._tail is not None:
            async with self._gate.http.stream("GET", objects.presign_get(self._tail[0], URL_SECONDS)) as answer:
                if answer.status_code != 200:
                    raise StorageUnavailable(retry_after=1, key=self._tail[0], status=answer.status_code)
                async for chunk in answer.aiter_raw():
                    yield chunk
        for chunk in joined(self._buffer, CHUNK_BYTES):
            yield chunk

    async def _content_type(self) -> str:
        head = await blocking(objects.read_range, self._tail[0], 0, SNIFF_BYTES) if self._tail else b""
        for piece in self._buffer:
            if len(head) >= SNIFF_BYTES:
                break
            head += piece[:SNIFF_BYTES]
        said = metadata(self._standing.metadata)
        return content_type_of(head[:SNIFF_BYTES], type_of(said), name_of(said))


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

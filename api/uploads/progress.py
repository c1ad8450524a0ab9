"""How far a resumable upload has come in the store, and what moves it on: a part or a tail, noted once it is there.

What fills no part becomes the *tail*, an object of its own that is put before the next bytes.
"""

import asyncio
from collections.abc import AsyncIterator

import structlog

from api.objects import Gateway, blocking
from api.uploads import digests
from api.uploads.intake import CHUNK_BYTES
from api.uploads.parts import URL_SECONDS, send
from domain.errors.neighbours import StorageUnavailable
from domain.errors.uploads import UploadOffsetMismatch
from domain.files import SNIFF_BYTES, content_type_of
from domain.identity import new_id
from domain.uploads import metadata, name_of, type_of
from storage import discarding, objects, quotas
from storage.uploads import receiving
from storage.uploads.content import joined
from storage.uploads.receiving import Held, Standing

Tail = tuple[str, int]  # key, bytes

log = structlog.get_logger(__name__)


class Batch:
    """What goes to the store in one PUT: the tail that is there already, and then what has come since."""

    def __init__(self, tail: Tail | None = None) -> None:
        self.tail = tail
        self.pieces: list[bytes] = []
        self.held = 0  # bytes in memory

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.held += len(piece)

    @property
    def size(self) -> int:
        return self.held + (self.tail[1] if self.tail else 0)


class Progress:
    """One batch at a time, in order; ``kept`` is the offset up to which the bytes are in the store and noted.

    Each write raises:
        StorageUnavailable: the store refused or broke off; what was noted before stays.
        UploadLocked: another request has the upload now.
        UploadOffsetMismatch: the store has lost what it had, and the upload begins anew at 0.
        StorageQuotaExceeded: the length is not known, and there is no room for more.
    """

    def __init__(self, gate: Gateway, held: Held, standing: Standing) -> None:
        self._gate = gate
        self._held = held
        self._standing = standing
        self.kept = standing.received
        self.parts = standing.parts
        self._multipart_id = standing.multipart_id
        self.tail: Tail | None = (standing.tail_key, standing.tail_size) if standing.tail_key else None
        self.noted = False  # anything at all
        self.known = digests.at(standing.id, standing.received)  # of the first ``kept`` bytes
        self._ahead = self.known  # of what is sent and not noted yet

    async def reserve(self, received: int) -> None:
        """Before anything is sent to the store that would have to be taken back. Raises StorageQuotaExceeded."""
        if self._standing.length is None and quotas.limited():
            await blocking(receiving.reserve, self._held, self._standing, received)

    async def write_part(self, batch: Batch) -> None:
        await self.reserve(self.kept + batch.held)
        if self._multipart_id is None:
            self._multipart_id = await blocking(
                objects.create_multipart, self._standing.object_key, await self._content_type(batch)
            )
        number = self.parts + 1
        url = objects.presign_part(self._standing.object_key, self._multipart_id, number, URL_SECONDS)
        etag = await self._send(batch, url, {})
        await self.note(batch.held, None, (number, etag))
        self.parts = number

    async def write_tail(self, batch: Batch) -> None:
        await self.reserve(self.kept + batch.held)
        key, content_type = objects.input_key(new_id()), await self._content_type(batch)
        url = objects.presign_put(key, URL_SECONDS, content_type)
        await self._send(batch, url, {"Content-Type": content_type})
        await self.note(batch.held, (key, batch.size))

    async def note(self, more: int, tail: Tail | None, part: tuple[int, str] | None = None) -> None:
        """``more`` bytes are in the store; tell the database."""
        received = self.kept + more
        await blocking(
            receiving.keep,
            self._held,
            received=received,
            length=self._standing.length,
            multipart_id=self._multipart_id,
            tail=tail,
            part=part,
        )
        self.kept, self.noted, self.known = received, True, self._ahead
        before, self.tail = self.tail, tail
        if before is not None and before != tail:
            await blocking(discarding.discard, [before[0]])

    async def _send(self, batch: Batch, url: str, headers: dict[str, str]) -> str:
        """PUT it; the ETag. The digest is taken meanwhile: hashlib lets go of the GIL."""
        sending = self._sent(batch, url, headers)
        content, self._ahead = self.known, None
        self.known = None  # unknown, unless all of it goes well
        if content is None:
            return await sending
        etag, _ = await asyncio.gather(sending, blocking(content.update, batch.pieces))
        self._ahead = content
        return etag

    async def _sent(self, batch: Batch, url: str, headers: dict[str, str]) -> str:
        for last in (False, True):
            try:
                key = self._standing.object_key
                return await send(self._gate, key, url, self._content(batch), batch.size, headers)
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

    async def _content(self, batch: Batch) -> AsyncIterator[bytes]:
        if batch.tail is not None:
            async with self._gate.http.stream("GET", objects.presign_get(batch.tail[0], URL_SECONDS)) as answer:
                if answer.status_code != 200:
                    raise StorageUnavailable(retry_after=1, key=batch.tail[0], status=answer.status_code)
                async for chunk in answer.aiter_raw():
                    yield chunk
        for chunk in joined(batch.pieces, CHUNK_BYTES):
            yield chunk

    async def _content_type(self, batch: Batch) -> str:
        head = await blocking(objects.read_range, batch.tail[0], 0, SNIFF_BYTES) if batch.tail else b""
        for piece in batch.pieces:
            if len(head) >= SNIFF_BYTES:
                break
            head += piece[:SNIFF_BYTES]
        said = metadata(self._standing.metadata)
        return content_type_of(head[:SNIFF_BYTES], type_of(said), name_of(said))

"""One attachment: decoded into a temporary file, judged by its first bytes, and uploaded unless it is known."""

import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import IO, NamedTuple, cast
from uuid import UUID

import msgspec
import structlog

from domain.identity import new_id
from domain.pipelines import Context
from domain.recordings import audio, phones
from domain.recordings.mail import Part
from domain.recordings.mailboxes import Skipped
from domain.recordings.names import read_call
from domain.recordings.transfer import decoded
from storage import discarding, objects
from storage.configuration import settings
from storage.database import autocommit
from storage.recordings import keeping
from storage.recordings.imap import Gone
from storage.recordings.keeping import NewRecording
from storage.recordings.mailboxes import Access
from storage.recordings.messages import Claimed

PART_BYTES = 8 * 1024**2  # of a multipart upload, and what is held in memory at most
IN_MEMORY = 1024 * 1024  # a shorter attachment makes no file

_log = structlog.get_logger()


class TooLarge(Exception):
    """More than RECORDING_MAX_BYTES."""


class Empty(Exception):
    """Not a byte."""


class Spooled(msgspec.Struct, frozen=True, kw_only=True):
    """An attachment as it was sent, on this machine."""

    part: Part
    file: IO[bytes]
    size: int
    sha256: str
    content_type: str | None  # None: by its first bytes it is no audio


class Letter(NamedTuple):
    """What was read of a message, and why there is not more of it."""

    spooled: list[Spooled]
    reason: Skipped | None


def read(claimed: Claimed, pieces: Callable[[Part], Iterable[bytes]], context: Context) -> Letter:
    """A message's attachments, of what ``pieces`` gives for each; what is wrong with them is no reason to stop.

    Raises as ``pieces`` does, but for Gone.
    """
    spooled: list[Spooled] = []
    reason: Skipped | None = None
    try:
        for part in claimed.parts:
            try:
                spooled.append(_spool(part, pieces(part), context))
            except Gone:
                return Letter(spooled, Skipped.GONE)
            except TooLarge:
                reason = Skipped.TOO_LARGE
            except Empty:
                reason = reason or Skipped.EMPTY
            except ValueError as error:
                _log.warning("message_unreadable", uid=claimed.uid, error=str(error))
                reason = Skipped.UNREADABLE
    except BaseException:
        for one in spooled:
            one.file.close()
        raise
    return Letter(spooled, reason)


def _spool(part: Part, pieces: Iterable[bytes], context: Context) -> Spooled:
    largest, size, digest = settings().recording_max_bytes, 0, sha256()
    if part.octets > largest:
        raise TooLarge  # without asking for a byte of it
    file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  # whoever stores it closes it
    try:
        for piece in decoded(pieces, part.encoding):
            context.checkpoint()
            size += len(piece)
            if size > largest:
                raise TooLarge  # noqa: TRY301  # the file is closed below
            digest.update(piece)
            file.write(piece)
        if not size:
            raise Empty  # noqa: TRY301
        file.seek(0)
        found = audio.content_type_of(file.read(audio.HEAD))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Spooled(part=part, file=cast(IO[bytes], file), size=size, sha256=digest.hexdigest(), content_type=found)


def keep_part(
    access: Access, claimed: Claimed, spooled: Spooled, job_id: UUID, context: Context
) -> NewRecording | None:
    """Upload it, to be inserted; None when the owner has it already. Raises StorageUnavailable."""
    with autocommit() as connection:
        if keeping.known(connection, access.owner_id, [spooled.sha256]):
            return None
    key = f"recordings/{new_id()}"
    content_type = spooled.content_type or "application/octet-stream"
    upload(key, spooled.file, spooled.size, content_type, context)
    name = spooled.part.name
    call = read_call(name, access.zone, partial(phones.normalised, region="RU"))
    return NewRecording(
        id=new_id(),
        owner_id=access.owner_id,
        mailbox_id=access.id,
        part=spooled.part.number,
        object_key=key,
        name=name or f"recording-{claimed.uid}",
        content_type=content_type,
        size=spooled.size,
        sha256=spooled.sha256,
        from_number=call.from_number if call else None,
        to_number=call.to_number if call else None,
        started_at=call.started_at if call else None,
        received_at=claimed.received_at or datetime.now(UTC),
        warning=None if spooled.content_type else audio.AudioWarning.NOT_AUDIO,
        heard=spooled.content_type is None,
        job_id=job_id,
    )


def upload(key: str, source: IO[bytes], size: int, content_type: str, context: Context) -> None:
    """An object of ``size`` bytes, in parts when it is long. Raises StorageUnavailable; nothing stays then."""
    if size <= PART_BYTES:
        objects.put(key, source.read(), content_type)
        return
    upload_id = objects.create_multipart(key, content_type)
    try:
        etags: list[str] = []
        while data := source.read(PART_BYTES):
            context.checkpoint()
            etags.append(objects.upload_part(key, upload_id, len(etags) + 1, data))
        objects.complete_multipart(key, upload_id, etags)
    except BaseException:
        discarding.discard_multipart(key, upload_id)
        raise

"""From the last byte of an upload to its file and its job.

Whoever holds the claim of an upload in `finishing` asks the quota, puts the object together, learns its SHA-256 and
commits the row of the file, the job and the end of the upload in one transaction. Every step may be done twice: the
request that brought the last byte does it, and where its process died the tick `uploads.sweep`.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog
from sqlalchemy import Connection, text

from domain.errors import MillraceError
from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.uploads import StorageQuotaExceeded, UploadIncomplete, UploadLocked
from domain.files import SNIFF_BYTES, StoredObject, content_type_of, kind_of
from domain.uploads import metadata, name_of, type_of
from storage import discarding, files, objects, quotas, twins
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.failpoints import reached
from storage.jobs import commands, orders
from storage.uploads import receiving, removal
from storage.uploads.content import Content
from storage.uploads.receiving import Held

READ_BYTES = 1024**2  # of one range, when an object has to be read again
# A store that does not know an upload it should have may still be busy with it; after so long it has lost it.
LOST_SECONDS = 300
# Partial uploads stay so long after the final one: whoever lost its answer may order it once more.
SPENT_SECONDS = 60

_log = structlog.get_logger()

_row = text("""
    SELECT id, owner_id, length, part_size, object_key, multipart_id, tail_key, tail_size, partial, sources, metadata,
           finishing_at < now() - make_interval(secs => :lost) AS long_ago
    FROM uploads WHERE id = :id AND claim = :claim AND state = 'finishing'""")
_etags = text("SELECT etag FROM upload_parts WHERE upload_id = :id ORDER BY number")
_keys = text("SELECT object_key, length FROM uploads WHERE id = :id")
_begun = text("UPDATE uploads SET multipart_id = :multipart_id WHERE id = :id AND claim = :claim")
_take = text("""
    UPDATE uploads SET claim = :claim, lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE id = :id AND state = 'finishing' AND (claim IS NULL OR lease_until <= clock_timestamp())""")
_stuck = text("""
    SELECT id FROM uploads WHERE state = 'finishing' AND (claim IS NULL OR lease_until <= clock_timestamp())
    ORDER BY finishing_at LIMIT :limit""")
_complete = text("""
    UPDATE uploads SET state = 'complete', object_key = :key, multipart_id = NULL, tail_key = NULL, tail_size = 0,
        claim = NULL, lease_until = NULL, asked_at = NULL, expires_at = now() + make_interval(secs => :keep)
    WHERE id = :id AND claim = :claim AND state = 'finishing' RETURNING job""")
_spend = text("""
    UPDATE uploads SET expires_at = LEAST(expires_at, now() + make_interval(secs => :stay))
    WHERE id = ANY(:sources) AND partial AND NOT EXISTS (
        SELECT FROM uploads AS final WHERE final.state = 'finishing' AND uploads.id = ANY(final.sources))""")
_forget_parts = text("DELETE FROM upload_parts WHERE upload_id = :id")


def stuck(connection: Connection, limit: int) -> list[UUID]:
    """Uploads that have all their bytes and nobody at work on them."""
    return list(connection.execute(_stuck, {"limit": limit}).scalars())


def take(upload_id: UUID) -> Held | None:
    """The claim of an upload in `finishing`, if it is free."""
    held = Held(id=upload_id, claim=uuid4())
    values = {"id": upload_id, "claim": held.claim, "lease": settings().lease_seconds}
    with autocommit() as connection:
        return held if connection.execute(_take, values).rowcount == 1 else None


def finish(held: Held, content: Content | None = None) -> None:
    """Make the file of a whole upload, and its job if it asked for one; ``content`` where it is known already.

    Raises:
        UploadLocked: the claim is another's by now, or it is done.
        StorageUnavailable: the store does not have it, or cannot be reached; the sweep tries again.
        StorageQuotaExceeded: its owner may not keep so much; the upload is gone.
    """
    with _beating(held):
        with autocommit() as connection:
            row = connection.execute(_row, {"id": held.id, "claim": held.claim, "lost": LOST_SECONDS}).one_or_none()
        if row is None:
            raise UploadLocked(retry_after=1)
        _decide(held, row)
        try:
            stored = _stored(held, row, content)
        except ObjectMissing as error:
            if row.long_ago:
                _log.error("upload_lost", upload_id=str(held.id), key=row.object_key)
                receiving.reset(held)
            raise StorageUnavailable(retry_after=5) from error
        reached("order.stored", held.id)
        if not row.partial:
            stored = twins.found(row.owner_id, stored)
        try:
            ordered = _commit(held, row, stored)
        except StorageQuotaExceeded:
            with autocommit() as connection:
                remains = removal.drop(connection, held)
            removal.sweep_out(remains)
            raise
    if ordered is not None:
        orders.set_going(ordered)
    twins.drop_unless_named(stored)
    if row.tail_key not in (None, stored.key):  # it is in the object now
        discarding.discard([row.tail_key])


def _decide(held: Held, row: Any) -> None:
    """What may be no file is not put together. From here on its length counts against whoever else wants room.

    Raises:
        StorageQuotaExceeded: the upload is gone, and of several that end together the others may fit now.
    """
    if not quotas.limited():
        return
    with transaction() as connection:
        quotas.lock(connection, row.owner_id)
        try:
            quotas.check(connection, row.owner_id, row.length, row.id, files=0 if row.partial else 1)
        except StorageQuotaExceeded as error:
            refused, remains = error, removal.drop(connection, held)
        else:
            return
    removal.sweep_out(remains)
    raise refused


def _commit(held: Held, row: Any, stored: StoredObject) -> commands.Ordered | None:
    values = {"id": held.id, "claim": held.claim, "key": stored.key, "keep": settings().upload_expires_seconds}
    with transaction() as connection:
        done = connection.execute(_complete, values).one_or_none()
        if done is None:
            raise UploadLocked(retry_after=1)
        connection.execute(_forget_parts, {"id": held.id})
        if row.sources is not None:
            connection.execute(_spend, {"sources": row.sources, "stay": SPENT_SECONDS})
        if row.partial:
            return None
        file = files.insert(connection, row.owner_id, stored)
        if done.job is None:
            return None
        job = msgspec.convert(done.job, commands.NewJob)
        job = msgspec.structs.replace(job, input_file_id=file.id, owns_input=True)
        return orders.store(connection, job)


# ---------------------------------------------------------------- the object


def _stored(held: Held, row: Any, content: Content | None) -> StoredObject:
    said = metadata(row.metadata)
    name, declared = name_of(said), type_of(said)
    key = row.object_key
    if row.sources is not None:
        content = _concatenate(held, row, name, declared)
    elif row.length == 0:
        objects.put(key, b"", content_type_of(b"", declared, name))
    elif row.multipart_id is None:
        key = row.tail_key  # it never filled a part: the tail is the whole
    else:
        _complete_parts(row)
    head = objects.read_range(key, 0, SNIFF_BYTES)
    if not row.partial and content is None:
        content = _read(key, row.length)
    return StoredObject(
        id=row.id,
        key=key,
        name=name,
        size=row.length,
        sha256=content.sha256 if content else "",
        content_type=content_type_of(head, declared, name),
        kind=kind_of(head),
        local_headers=content.local_headers if content else None,
    )


def _complete_parts(row: Any) -> None:
    with autocommit() as connection:
        etags = list(connection.execute(_etags, {"id": row.id}).scalars())
    try:
        if row.tail_key is not None:  # the length was said after the last byte
            tail = objects.read(row.tail_key, row.part_size)
            etags.append(objects.upload_part(row.object_key, row.multipart_id, len(etags) + 1, tail))
        objects.complete_multipart(row.object_key, row.multipart_id, etags)
    except (ObjectMissing, UploadIncomplete) as error:
        # somebody who died had completed it, or the store has lost it
        if objects.size_of(row.object_key) != row.length:
            raise ObjectMissing(key=row.object_key) from error


def _read(key: str, size: int) -> Content:
    """Of an object, read once: hashlib's state cannot be kept between processes."""
    content = Content()
    content.update(_range(key, start, min(READ_BYTES, size - start)) for start in range(0, size, READ_BYTES))
    return content


def _range(key: str, start: int, length: int) -> bytes:
    data = objects.read_range(key, start, length)
    if len(data) != length:
        raise ObjectMissing(key=key)
    return data


def _concatenate(held: Held, row: Any, name: str, declared: str | None) -> Content:
    """Write the partial uploads as one object; the answer is what is known of it.

    Through this process and not by UploadPartCopy: the digest needs every byte once anyway, a part may not be below 5
    MiB while a partial upload may, and `rclone serve s3` answers such a copy with 200 and copies nothing (measured).
    """
    with autocommit() as connection:
        pieces = [connection.execute(_keys, {"id": source}).one_or_none() for source in row.sources]
    if None in pieces:
        raise ObjectMissing(key=row.object_key)
    parts = _cut([(piece.object_key, piece.length) for piece in pieces if piece is not None], row.part_size)
    first = next(parts, b"")
    content = Content()
    content.update([first])
    content_type = content_type_of(first[:SNIFF_BYTES], declared, name)
    if row.length <= row.part_size:
        objects.put(row.object_key, first, content_type)
        return content
    if row.multipart_id is not None:  # of somebody who died
        objects.abort_multipart(row.object_key, row.multipart_id)
    multipart_id = objects.create_multipart(row.object_key, content_type)
    with autocommit() as connection:
        connection.execute(_begun, {"id": held.id, "claim": held.claim, "multipart_id": multipart_id})
    etags = [objects.upload_part(row.object_key, multipart_id, 1, first)]
    del first
    for part in parts:
        content.update([part])
        etags.append(objects.upload_part(row.object_key, multipart_id, len(etags) + 1, part))
    objects.complete_multipart(row.object_key, multipart_id, etags)
    return content


def _cut(pieces: list[tuple[str, int]], size: int) -> Iterator[bytes]:
    """The bytes of several objects (key, length) in chunks of ``size``, the last one shorter."""
    held = bytearray()
    for key, length in pieces:
        for start in range(0, length, READ_BYTES):
            held += _range(key, start, min(READ_BYTES, length - start))
            if len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
    if held:
        yield bytes(held)


# ---------------------------------------------------------------- the lease


@contextmanager
def _beating(held: Held) -> Iterator[None]:
    """Hold on to the claim for the block, however long the store takes."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(min(1.0, settings().lease_seconds / 3)):
            try:
                if receiving.beat(held) == "lost":
                    return
            except MillraceError as error:  # the database is away: the commit will tell
                _log.warning("upload_not_held", upload_id=str(held.id), error=error.code)

    thread = threading.Thread(target=beat, name="upload-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

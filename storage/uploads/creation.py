"""The row of a new upload. It is there before anything of the upload is in the store."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import Connection, text

from domain.errors.requests import BodyTooLarge, Conflict
from storage import objects, quotas
from storage.configuration import settings
from storage.jobs.commands import NewJob
from storage.uploads.receiving import LOOK, Standing, standing_of

_new = text("""
    INSERT INTO uploads (id, owner_id, state, length, received, part_size, object_key, partial, sources, metadata, job,
                         finishing_at, expires_at)
    VALUES (:id, :owner_id, :state, :length, :received, :part_size, :object_key, :partial, CAST(:sources AS uuid[]),
            :metadata, CAST(:job AS jsonb), CASE WHEN :state = 'finishing' THEN now() END,
            now() + make_interval(secs => :keep))""")
# They must not expire before the final upload is made of them.
_hold_sources = text("""
    UPDATE uploads SET expires_at = GREATEST(expires_at, now() + make_interval(secs => :keep))
    WHERE id = ANY(:ids) AND owner_id = :owner_id AND partial AND state = 'complete' RETURNING id, length""")


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    owner_id: UUID
    length: int | None  # None: said later
    metadata: str  # the header
    partial: bool = False
    job: NewJob | None = None


def create(connection: Connection, new: NewUpload, sources: Sequence[UUID] = ()) -> Standing:
    """An upload without bytes (one of length 0 has them all), or one that is made of complete partial ones. Needs a
    transaction.

    Raises:
        NotFound: one of them is not there.
        Conflict: one is not partial, or not complete.
        BodyTooLarge: together they are larger than MAX_UPLOAD_BYTES.
    """
    if not sources:
        return _insert(connection, new, None)
    values = {"ids": list(sources), "owner_id": new.owner_id, "keep": settings().upload_expires_seconds}
    lengths = {row.id: row.length for row in connection.execute(_hold_sources, values)}
    for source in sources:
        if source not in lengths:
            standing = standing_of(connection.execute(LOOK, {"id": source, "owner_id": new.owner_id}).one_or_none())
            raise Conflict(reason=f"the upload {source} is not {'complete' if standing.partial else 'partial'}")
    if (length := sum(lengths[source] for source in sources)) > (limit := settings().max_upload_bytes):
        raise BodyTooLarge(limit=limit)
    return _insert(connection, msgspec.structs.replace(new, length=length), list(sources))


def _insert(connection: Connection, new: NewUpload, sources: list[UUID] | None) -> Standing:
    complete = new.length == 0 or sources is not None
    config = settings()
    values = {
        "id": new.id,
        "owner_id": new.owner_id,
        "state": "finishing" if complete else "receiving",
        "length": new.length,
        "received": new.length if complete else 0,
        "part_size": part_size(config.max_upload_bytes),
        "object_key": objects.input_key(new.id),
        "partial": new.partial,
        "sources": sources,
        "metadata": new.metadata,
        "job": None if new.job is None else msgspec.json.encode(new.job).decode(),
        "keep": config.upload_expires_seconds,
    }
    connection.execute(_new, values)
    # after the row: what a final upload is made of counts with it, and not once more
    quotas.claim(connection, new.owner_id, new.length or 0, new.id, files=0 if new.partial else 1)
    return standing_of(connection.execute(LOOK, {"id": new.id, "owner_id": new.owner_id}).one())


def part_size(limit: int) -> int:
    """Of an upload of at most ``limit`` bytes: as small as the store allows, for a part is held in memory."""
    return max(objects.SMALLEST_PART, -(-limit // objects.PARTS))

"""The row of an upload while bytes come: who is at work on it, and what of it is kept.

A request claims the upload before it reads its body and holds the claim by a lease. What it keeps is committed only
while that lease stands: of two requests one commits, and one that froze and woke commits nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Connection, text

from domain.errors import (
    BodyTooLarge,
    Conflict,
    NotFound,
    UploadExpired,
    UploadHeader,
    UploadIsFinal,
    UploadLocked,
    UploadOffsetMismatch,
)
from domain.uploads import State
from storage import objects
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.jobs.commands import NewJob

_SEEN = """id, owner_id, state, length, received, part_size, object_key, multipart_id, tail_key, tail_size, partial,
    sources, metadata, created_at, expires_at, expires_at <= now() AND state <> 'finishing' AS expired,
    lease_until > clock_timestamp() AS claimed, asked_at IS NOT NULL AS asked,
    (SELECT count(*) FROM upload_parts WHERE upload_id = id) AS parts"""

_insert = text("""
    INSERT INTO uploads (id, owner_id, state, length, received, part_size, object_key, partial, sources, metadata, job,
                         finishing_at, expires_at)
    VALUES (:id, :owner_id, :state, :length, :received, :part_size, :object_key, :partial, CAST(:sources AS uuid[]),
            :metadata, CAST(:job AS jsonb), CASE WHEN :state = 'finishing' THEN now() END,
            now() + make_interval(secs => :keep))""")
# They must not expire before the final upload is made of them.
_hold_sources = text("""
    UPDATE uploads SET expires_at = GREATEST(expires_at, now() + make_interval(secs => :keep))
    WHERE id = ANY(:ids) AND owner_id = :owner_id AND partial AND state = 'complete' RETURNING id, length""")
_look = text(f"SELECT {_SEEN} FROM uploads WHERE id = :id AND owner_id = :owner_id")
_claim = text(f"""
    UPDATE uploads SET claim = :claim, lease_until = clock_timestamp() + make_interval(secs => :lease), asked_at = NULL
    WHERE id = :id AND owner_id = :owner_id AND state = 'receiving' AND received = :offset AND expires_at > now()
      AND (claim IS NULL OR lease_until <= clock_timestamp())
    RETURNING {_SEEN}""")
_mine = "id = :id AND claim = :claim AND lease_until > clock_timestamp()"
_keep = text(f"""
    WITH kept AS (
        UPDATE uploads SET received = :received, length = :length, multipart_id = :multipart_id, tail_key = :tail_key,
            tail_size = :tail_size, lease_until = clock_timestamp() + make_interval(secs => :lease),
            expires_at = now() + make_interval(secs => :keep),
            state = CASE WHEN CAST(:received AS bigint) = :length THEN 'finishing' ELSE state END,
            finishing_at = CASE WHEN CAST(:received AS bigint) = :length THEN now() END
        WHERE {_mine} AND state = 'receiving' RETURNING id),
    part AS (
        INSERT INTO upload_parts (upload_id, number, etag)
        SELECT id, :number, :etag FROM kept WHERE CAST(:number AS int) IS NOT NULL)
    SELECT id FROM kept""")
_beat = text(f"""
    UPDATE uploads SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE {_mine} RETURNING asked_at IS NOT NULL""")
_ask = text(f"""
    UPDATE uploads SET asked_at = COALESCE(asked_at, now()) WHERE id = :id AND owner_id = :owner_id
    RETURNING {_SEEN}""")
_deny = text("UPDATE uploads SET asked_at = NULL WHERE id = :id AND claim = :claim")
_release = text("""
    UPDATE uploads SET claim = NULL, lease_until = NULL, asked_at = NULL WHERE id = :id AND claim = :claim""")
_reset = text(f"""
    WITH emptied AS (
        UPDATE uploads SET received = 0, state = 'receiving', multipart_id = NULL, tail_key = NULL, tail_size = 0,
            finishing_at = NULL
        WHERE {_mine} RETURNING id)
    DELETE FROM upload_parts WHERE upload_id IN (SELECT id FROM emptied)""")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How an upload stands."""

    id: UUID
    owner_id: UUID
    state: State
    length: int | None
    received: int
    part_size: int
    object_key: str
    multipart_id: str | None
    tail_key: str | None
    tail_size: int
    parts: int
    partial: bool
    sources: list[UUID] | None
    metadata: str
    created_at: datetime
    expires_at: datetime
    expired: bool
    claimed: bool
    asked: bool


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The right to work on an upload, until its lease runs out and somebody else takes it."""

    id: UUID
    claim: UUID


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    owner_id: UUID
    length: int | None  # None: said later
    metadata: str  # the header
    partial: bool = False
    job: NewJob | None = None


def create(new: NewUpload) -> None:
    """An upload without bytes; one of length 0 has them all."""
    state: State = "finishing" if new.length == 0 else "receiving"
    with autocommit() as connection:
        _create(connection, new, state, new.length, None)


def create_final(new: NewUpload, sources: Sequence[UUID]) -> None:
    """An upload that is made of complete partial ones.

    Raises:
        NotFound: one of them is not there, or is not partial.
        Conflict: one is not complete, or is named twice.
        BodyTooLarge: together they are larger than MAX_UPLOAD_BYTES.
    """
    keep = settings().upload_expires_seconds
    with transaction() as connection:
        values = {"ids": list(sources), "owner_id": new.owner_id, "keep": keep}
        lengths = {row.id: row.length for row in connection.execute(_hold_sources, values)}
        for source in sources:
            if source not in lengths:
                standing = look(source, new.owner_id)
                raise Conflict(reason=f"the upload {source} is not {'complete' if standing.partial else 'partial'}")
        if (length := sum(lengths[source] for source in sources)) > (limit := settings().max_upload_bytes):
            raise BodyTooLarge(limit=limit)
        _create(connection, msgspec.structs.replace(new, length=length), "finishing", length, list(sources))


def _create(
    connection: Connection, new: NewUpload, state: State, received: int | None, sources: list[UUID] | None
) -> None:
    config = settings()
    values = {
        "id": new.id,
        "owner_id": new.owner_id,
        "state": state,
        "length": new.length,
        "received": received if state == "finishing" else 0,
        "part_size": part_size(config.max_upload_bytes),
        "object_key": objects.input_key(new.id),
        "partial": new.partial,
        "sources": sources,
        "metadata": new.metadata,
        "job": None if new.job is None else msgspec.json.encode(new.job).decode(),
        "keep": config.upload_expires_seconds,
    }
    connection.execute(_insert, values)


def part_size(limit: int) -> int:
    """Of an upload of at most ``limit`` bytes: as small as the store allows, for a part is held in memory."""
    return max(objects.SMALLEST_PART, -(-limit // objects.PARTS))


def look(upload_id: UUID, owner_id: UUID) -> Standing:
    """Raises NotFound, or UploadExpired while the row is still there."""
    with autocommit() as connection:
        return _standing(connection.execute(_look, {"id": upload_id, "owner_id": owner_id}).one_or_none())


def claim(
    upload_id: UUID, owner_id: UUID, offset: int, length: int | None, announced: int | None
) -> tuple[Held, Standing]:
    """Take the upload for a request that brings bytes from ``offset`` on; ``length`` is of the whole where the request
    says it, ``announced`` what it brings. The standing has the length.

    Raises:
        NotFound, UploadExpired
        UploadIsFinal: it is made of others.
        UploadOffsetMismatch: it stands elsewhere.
        UploadHeader: the length contradicts what is known.
        BodyTooLarge: more is announced than is missing.
        Conflict: it is complete.
        UploadLocked: another request is at work on it.
    """
    standing = look(upload_id, owner_id)
    _check(standing, offset, length, announced)
    held = Held(id=upload_id, claim=uuid4())
    values = {"id": upload_id, "owner_id": owner_id, "claim": held.claim, "offset": offset, "lease": _lease()}
    with autocommit() as connection:
        row = connection.execute(_claim, values).one_or_none()
    if row is None:
        _check(look(upload_id, owner_id), offset, length, announced)
        raise UploadLocked(retry_after=1)
    claimed = _standing(row)
    return held, claimed if claimed.length is not None else msgspec.structs.replace(claimed, length=length)


def _check(standing: Standing, offset: int, length: int | None, announced: int | None) -> None:
    if standing.sources is not None:
        raise UploadIsFinal
    if offset != standing.received:
        raise UploadOffsetMismatch(offset=standing.received, field="Upload-Offset")
    if length is not None and (length < offset or (standing.length is not None and length != standing.length)):
        raise UploadHeader(field="Upload-Length", reason="it contradicts what is known of the upload")
    if length is not None and length > settings().max_upload_bytes:
        raise BodyTooLarge(limit=settings().max_upload_bytes)
    if standing.state != "receiving":
        raise Conflict(reason="the upload is complete")
    if announced is not None and announced > room(standing, length):
        raise BodyTooLarge(limit=room(standing, length))


def room(standing: Standing, length: int | None = None) -> int:
    """How many bytes it may still take; ``length`` where the row does not know it yet."""
    whole = standing.length if standing.length is not None else length
    return (settings().max_upload_bytes if whole is None else whole) - standing.received


def keep(
    held: Held,
    *,
    received: int,
    length: int | None,
    multipart_id: str | None,
    tail: tuple[str, int] | None = None,
    part: tuple[int, str] | None = None,
) -> None:
    """Note what the store has by now: a further ``part`` (number, ETag), and the ``tail`` (key, size) after it.

    With the last byte the upload is `finishing`: from then on its file will be made, whatever happens to the client.

    Raises:
        UploadLocked: the claim is another's by now, or the upload is gone; nothing was noted.
    """
    key, size = tail or (None, 0)
    number, etag = part or (None, None)
    values = {
        **_values(held),
        "received": received,
        "length": length,
        "multipart_id": multipart_id,
        "tail_key": key,
        "tail_size": size,
        "number": number,
        "etag": etag,
        "keep": settings().upload_expires_seconds,
    }
    with autocommit() as connection:
        if connection.execute(_keep, values).one_or_none() is None:
            raise UploadLocked(retry_after=1)


def beat(held: Held) -> Literal["held", "asked", "lost"]:
    """Hold on to the upload; `asked` when somebody waits for it."""
    with autocommit() as connection:
        row = connection.execute(_beat, _values(held)).one_or_none()
    if row is None:
        return "lost"
    return "asked" if row[0] else "held"


def ask(upload_id: UUID, owner_id: UUID) -> Standing:
    """``look``, and ask the request that is at work on it to let go if it only waits for its client."""
    with autocommit() as connection:
        return _standing(connection.execute(_ask, {"id": upload_id, "owner_id": owner_id}).one_or_none())


def deny(held: Held) -> None:
    """The answer to ``ask``: bytes are coming."""
    with autocommit() as connection:
        connection.execute(_deny, {"id": held.id, "claim": held.claim})


def release(held: Held) -> None:
    with autocommit() as connection:
        connection.execute(_release, {"id": held.id, "claim": held.claim})


def reset(held: Held) -> None:
    """Begin anew at 0: the store has lost what it had."""
    with autocommit() as connection:
        connection.execute(_reset, _values(held))


def _lease() -> float:
    return settings().lease_seconds


def _values(held: Held) -> dict[str, Any]:
    return {"id": held.id, "claim": held.claim, "lease": _lease()}


def _standing(row: Any) -> Standing:
    if row is None:
        raise NotFound(what="upload")
    if row.expired:
        raise UploadExpired
    return Standing(**{**row._mapping, "claimed": bool(row.claimed)})

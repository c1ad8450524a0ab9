"""The row of an upload while bytes come: who is at work on it, and what of it is kept.

A request claims the upload before it reads its body and holds the claim by a lease. What it keeps is committed only
while that lease stands: of two requests one commits, and one that froze and woke commits nothing.
"""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import text

from domain.errors.requests import BodyTooLarge, Conflict, NotFound
from domain.errors.uploads import UploadExpired, UploadHeader, UploadIsFinal, UploadLocked, UploadOffsetMismatch
from domain.uploads import State
from storage import quotas
from storage.configuration import settings
from storage.database import autocommit, transaction

_SEEN = """id, owner_id, state, length, received, part_size, object_key, multipart_id, tail_key, tail_size, partial,
    sources, metadata, created_at, expires_at, expires_at <= now() AND state <> 'finishing' AS expired,
    lease_until > clock_timestamp() AS claimed, asked_at IS NOT NULL AS asked,
    (SELECT count(*) FROM upload_parts WHERE upload_id = id) AS parts"""

LOOK = text(f"SELECT {_SEEN} FROM uploads WHERE id = :id AND owner_id = :owner_id")
_claim = text(f"""
    UPDATE uploads SET claim = :claim, lease_until = clock_timestamp() + make_interval(secs => :lease), asked_at = NULL,
        reserved = 0
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
_reserve = text(f"UPDATE uploads SET reserved = GREATEST(reserved, :received) WHERE {_mine}")
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


def look(upload_id: UUID, owner_id: UUID) -> Standing:
    """Raises NotFound, or UploadExpired while the row is still there."""
    with autocommit() as connection:
        return standing_of(connection.execute(LOOK, {"id": upload_id, "owner_id": owner_id}).one_or_none())


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
        StorageQuotaExceeded: its length was not known, and with what is said of it now there is no room for it.
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
    claimed = standing_of(row)
    try:
        reserve(held, claimed, max(length or 0, offset + (announced or 0)))
    except BaseException:
        release(held)
        raise
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


def reserve(held: Held, standing: Standing, received: int) -> None:
    """Make sure that an upload of unknown length may go on to ``received`` bytes: they count from now on, for as long
    as the claim stands. Others have counted with their whole length since it was said.

    Raises:
        StorageQuotaExceeded
    """
    if standing.length is None and quotas.limited():
        with transaction() as connection:
            quotas.claim(connection, standing.owner_id, received, standing.id, files=0 if standing.partial else 1)
            connection.execute(_reserve, {"id": held.id, "claim": held.claim, "received": received})


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
        return standing_of(connection.execute(_ask, {"id": upload_id, "owner_id": owner_id}).one_or_none())


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


def standing_of(row: Any) -> Standing:
    if row is None:
        raise NotFound(what="upload")
    if row.expired:
        raise UploadExpired
    return Standing(**{**row._mapping, "claimed": bool(row.claimed)})

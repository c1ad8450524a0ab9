"""Uploads that go: ended by their owner, or expired. The row first, what it has in the store after the commit."""

from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

from domain.errors.requests import NotFound
from domain.errors.uploads import UploadLocked
from storage import discarding
from storage.database import autocommit
from storage.uploads.receiving import Held

_log = structlog.get_logger()

# What a final upload is being made of stays as long.
_NEEDED = "EXISTS (SELECT FROM uploads AS final WHERE final.state = 'finishing' AND uploads.id = ANY(final.sources))"
_LEFT = "state, partial, object_key, multipart_id, tail_key"

_terminate = text(f"""
    DELETE FROM uploads WHERE id = :id AND owner_id = :owner_id AND state <> 'finishing' AND NOT {_NEEDED}
    RETURNING {_LEFT}""")
_drop = text(f"DELETE FROM uploads WHERE id = :id AND claim = :claim RETURNING {_LEFT}")
_exists = text("SELECT FROM uploads WHERE id = :id AND owner_id = :owner_id")
_expire = text(f"""
    DELETE FROM uploads WHERE id IN (
        SELECT id FROM uploads
        WHERE expires_at <= now() AND NOT {_NEEDED}
          AND (state = 'complete' OR state = 'receiving' AND (claim IS NULL OR lease_until <= clock_timestamp()))
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING {_LEFT}""")
_under_way = text("""
    SELECT object_key FROM uploads WHERE state <> 'complete' AND object_key = ANY(CAST(:keys AS text[]))""")


class Remains(NamedTuple):
    """What an upload that is gone has in the store."""

    key: str
    multipart_id: str | None
    objects: list[str]


def terminate(upload_id: UUID, owner_id: UUID) -> Remains:
    """End an upload, whoever is at work on it; the file of a complete one stays.

    Raises:
        NotFound
        UploadLocked: its file is being made, or that of a final upload it is a part of.
    """
    values = {"id": upload_id, "owner_id": owner_id}
    with autocommit() as connection:
        row = connection.execute(_terminate, values).one_or_none()
        if row is None and connection.execute(_exists, values).one_or_none() is not None:
            raise UploadLocked(retry_after=1)
    if row is None:
        raise NotFound(what="upload")
    return _remains(row)


def drop(connection: Connection, held: Held) -> list[Remains]:
    """End an upload that is whole and may not become a file."""
    return [_remains(row) for row in connection.execute(_drop, {"id": held.id, "claim": held.claim})]


def end(upload_id: UUID, owner_id: UUID) -> None:
    """``terminate`` and ``sweep_out``."""
    sweep_out([terminate(upload_id, owner_id)])


def expire(connection: Connection, limit: int) -> list[Remains]:
    """End at most ``limit`` uploads whose time is over."""
    return [_remains(row) for row in connection.execute(_expire, {"limit": limit})]


def sweep_out(remains: Iterable[Remains]) -> None:
    """Delete from the store what is left of uploads that are gone. What cannot be reached goes with the leftovers."""
    all(map(_swept_out, remains))  # a store that is away is not asked for each of them


def _swept_out(one: Remains) -> bool:
    if one.multipart_id is None:
        return discarding.discard(one.objects)
    return discarding.discard_multipart(one.key, one.multipart_id, one.objects)


def under_way(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Those of the keys whose uploads are not complete."""
    return set(connection.execute(_under_way, {"keys": list(keys)}).scalars())


def _remains(row: Any) -> Remains:
    left = [row.tail_key] if row.tail_key is not None else []
    # of one in `finishing` the object may be there already, made by somebody who died before the commit
    if row.state == "finishing" or (row.state == "complete" and row.partial):
        left.append(row.object_key)
    return Remains(row.object_key, row.multipart_id, left)

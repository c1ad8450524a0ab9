"""Who was sent audio, and when: written before the first byte."""

from uuid import UUID

import msgspec
from sqlalchemy import Connection, text

from domain.accounts import Principal
from domain.recordings.audio import Access

_note = text("""
    INSERT INTO audio_accesses (recording_id, account_id, username, part)
    VALUES (:recording_id, :account_id, :username, :part)""")
_page = text("""
    SELECT id, recording_id, account_id, username, at, part FROM audio_accesses
    WHERE (CAST(:recording_id AS uuid) IS NULL OR recording_id = :recording_id)
        AND (CAST(:after AS bigint) IS NULL OR id < :after)
    ORDER BY id DESC LIMIT :limit""")


def note(connection: Connection, recording_id: UUID, principal: Principal, part: str | None) -> None:
    values = {"account_id": principal.id, "username": principal.username, "part": part and part[:200]}
    connection.execute(_note, {"recording_id": recording_id, **values})


def page(connection: Connection, *, recording_id: UUID | None, after: int | None, limit: int) -> list[Access]:
    """Newest first, those older than ``after``; of recordings that are gone as well."""
    rows = connection.execute(_page, {"recording_id": recording_id, "after": after, "limit": limit})
    return [msgspec.convert(dict(row._mapping), Access) for row in rows]

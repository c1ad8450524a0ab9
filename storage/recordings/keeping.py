"""Recordings: kept once for each owner, by what is in them; read, listened to and removed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection, select, text

from domain.errors.neighbours import StorageUnavailable
from domain.errors.requests import NotFound
from domain.recordings.audio import MatchStatus, Recording
from domain.recordings.mailboxes import MessageState, Skipped
from storage.recordings.tables import recordings

# What a message is that gave no recording of its own; skipped for any other reason.
_WITHOUT = {None: MessageState.DUPLICATE, Skipped.UNREADABLE: MessageState.FAILED}
LISTENS = 3  # attempts; what takes its worker with it so often is not listened to again

_columns = [recordings.c[name] for name in Recording.__struct_fields__ if name != "listened"]
_seen = [*_columns, recordings.c.heard.label("listened")]
_known = text("SELECT sha256 FROM recordings WHERE owner_id = :owner_id AND sha256 = ANY(:digests)")
# A message and all that is kept of it, in one statement: nothing when it is done with already (of two at once, one is
# too late), and nothing when a key is fenced because so much time has passed since it was written that the object may
# be gone (storage.reconciliation). The order keeps two letters with the same two recordings from a deadlock.
_keep = text("""
    WITH held AS (
        SELECT FROM mail_messages WHERE id = :message_id AND state = 'claimed'
            AND NOT EXISTS (SELECT FROM leftovers WHERE key = ANY(:keys)) FOR NO KEY UPDATE),
    kept AS (
        INSERT INTO recordings (id, owner_id, mailbox_id, mail_message_id, part, object_key, name, content_type, size,
            sha256, from_number, to_number, started_at, received_at, warning, heard, job_id)
        SELECT new.id, new.owner_id, new.mailbox_id, :message_id, new.part, new.object_key, new.name, new.content_type,
            new.size, new.sha256, new.from_number, new.to_number, new.started_at, new.received_at, new.warning,
            new.heard, new.job_id
        FROM jsonb_populate_recordset(CAST(NULL AS recordings), CAST(:new AS jsonb)) AS new, held ORDER BY new.sha256
        ON CONFLICT (owner_id, sha256) DO NOTHING RETURNING id)
    UPDATE mail_messages SET finished_at = now(),
        state = CASE WHEN EXISTS (SELECT FROM kept) OR decided <> '{}' THEN 'stored' ELSE :state END,
        reason = CASE WHEN EXISTS (SELECT FROM kept) OR decided <> '{}' THEN :said ELSE :reason END
    FROM held WHERE mail_messages.id = :message_id
    RETURNING (SELECT array_agg(id) FROM kept) AS ids""")
_fenced = text("SELECT key FROM leftovers WHERE key = ANY(:keys) LIMIT 1")
_of_job = text("SELECT id FROM recordings WHERE job_id = :job_id AND status = 'unmatched' ORDER BY id")
_delete = text("""
    DELETE FROM recordings WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)
    RETURNING object_key""")
_expire = text("""
    WITH old AS (
        SELECT id FROM recordings WHERE created_at < now() - make_interval(secs => :seconds)
        ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    DELETE FROM recordings USING old WHERE recordings.id = old.id RETURNING object_key""")
# One at a time, so that another worker takes the next; what its worker died of is left for a while.
_take = text(f"""
    UPDATE recordings SET listens = listens + 1, listened_at = now() WHERE id = (
        SELECT id FROM recordings WHERE NOT heard AND listens < {LISTENS}
            AND (listened_at IS NULL OR listened_at < now() - interval '2 minutes')
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, object_key, size, content_type""")
_give_up = text(f"""
    UPDATE recordings SET heard = TRUE, warning = COALESCE(warning, 'audio_unreadable')
    WHERE NOT heard AND listens >= {LISTENS} AND listened_at < now() - interval '2 minutes'""")


class NewRecording(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    owner_id: UUID
    mailbox_id: UUID
    part: str
    object_key: str
    name: str
    content_type: str
    size: int
    sha256: str
    from_number: str | None
    to_number: str | None
    started_at: datetime | None
    received_at: datetime
    warning: str | None
    heard: bool  # there is nothing to listen to
    job_id: UUID


class Unheard(NamedTuple):
    id: UUID
    key: str
    size: int
    content_type: str


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What listening has found out."""

    duration_seconds: float | None = None
    codec: str | None = None
    channels: int | None = None
    sample_rate: int | None = None
    bitrate: int | None = None
    speech_share: float | None = None
    warning: str | None = None


def known(connection: Connection, owner_id: UUID, digests: Sequence[str]) -> set[str]:
    """Those of the digests of which the owner has a recording."""
    return set(connection.execute(_known, {"owner_id": owner_id, "digests": list(digests)}).scalars())


def keep(
    connection: Connection, message_id: UUID, new: Sequence[NewRecording], reason: Skipped | None
) -> list[NewRecording]:
    """Finish a message with its recordings; those whose objects nothing names are the answer: the owner has the same
    audio already, or another process was first. ``reason`` says why there are not more of them.

    Raises:
        StorageUnavailable: an object counts as a leftover and may be gone; nothing was done.
    """
    keys = [one.object_key for one in new]
    values = {
        "message_id": message_id,
        "keys": keys,
        "new": msgspec.json.encode(new).decode(),
        "said": reason and str(reason),
        "reason": str(reason or Skipped.SAME_AUDIO),
        "state": str(_WITHOUT.get(reason, MessageState.SKIPPED)),
    }
    row = connection.execute(_keep, values).one_or_none()
    if row is None and (fenced := connection.execute(_fenced, {"keys": keys}).scalar()) is not None:
        raise StorageUnavailable(retry_after=1, key=fenced)
    kept = set(row.ids or ()) if row is not None else set()
    return [one for one in new if one.id not in kept]


def of_job(connection: Connection, job_id: UUID) -> list[UUID]:
    """The recordings that a job has fetched and that are not matched."""
    return list(connection.execute(_of_job, {"job_id": job_id}).scalars())


def one(connection: Connection, recording_id: UUID, owner_id: UUID | None) -> Recording:
    """The owner's recording, anybody's for None. Raises NotFound."""
    return located(connection, recording_id, owner_id)[0]


def located(connection: Connection, recording_id: UUID, owner_id: UUID | None) -> tuple[Recording, str]:
    """``one`` with the key of its object."""
    statement = select(*_seen, recordings.c.object_key).where(recordings.c.id == recording_id)
    if owner_id is not None:
        statement = statement.where(recordings.c.owner_id == owner_id)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFound(what="recording")
    return _recording(row), str(row.object_key)


def page(
    connection: Connection,
    owner_id: UUID | None,
    *,
    after: UUID | None,
    limit: int,
    status: MatchStatus | None = None,
    mailbox_id: UUID | None = None,
    job_id: UUID | None = None,
    call_id: UUID | None = None,
    number: str | None = None,
    started_from: datetime | None = None,
    started_until: datetime | None = None,
) -> list[Recording]:
    """Newest first, those older than ``after``; ``number`` is one of its two, in E.164."""
    columns = recordings.c
    statement = select(*_seen).order_by(columns.id.desc()).limit(limit)
    equal = {"owner_id": owner_id, "status": status, "mailbox_id": mailbox_id, "job_id": job_id, "call_id": call_id}
    for name, value in equal.items():
        if value is not None:
            statement = statement.where(columns[name] == value)
    if number is not None:
        statement = statement.where((columns.from_number == number) | (columns.to_number == number))
    if started_from is not None:
        statement = statement.where(columns.started_at >= started_from)
    if started_until is not None:
        statement = statement.where(columns.started_at < started_until)
    if after is not None:
        statement = statement.where(columns.id < after)
    return [_recording(row) for row in connection.execute(statement)]


def delete(connection: Connection, recording_id: UUID, owner_id: UUID | None) -> str:
    """The key of the object, to be deleted after the commit. Raises NotFound."""
    key = connection.execute(_delete, {"id": recording_id, "owner_id": owner_id}).scalar_one_or_none()
    if key is None:
        raise NotFound(what="recording")
    return str(key)


def remove_old(connection: Connection, seconds: float, limit: int) -> list[str]:
    """Remove recordings older than that; the keys of their objects, to be deleted after the commit."""
    return list(connection.execute(_expire, {"seconds": seconds, "limit": limit}).scalars())


def take_unheard(connection: Connection) -> Unheard | None:
    """The next recording to listen to; another caller gets another one."""
    connection.execute(_give_up)
    row = connection.execute(_take).one_or_none()
    return None if row is None else Unheard(row.id, row.object_key, row.size, row.content_type)


def note_heard(connection: Connection, recording_id: UUID, heard: Heard) -> None:
    values: dict[str, Any] = msgspec.structs.asdict(heard)
    statement = recordings.update().where(recordings.c.id == recording_id, ~recordings.c.heard)
    connection.execute(statement.values(**values, heard=True))


def _recording(row: Any) -> Recording:
    return msgspec.convert(
        {str(name): value for name, value in row._mapping.items() if name != "object_key"}, Recording
    )

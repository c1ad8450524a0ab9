"""Messages as the step `fetch` sees them: what is waiting at a place, what could not be read, what is to be marked."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection, text

from domain.recordings.mail import Part
from domain.recordings.mailboxes import Skipped

# A message at which the connection breaks off is left alone for so long each time (seconds), and counts as bad
# afterwards: a line that is bad for less than an hour costs none.
PATIENCE = (600.0, 3600.0)
TRIES = len(PATIENCE) + 1

AT_PLACE = "mailbox_id = :mailbox_id AND source = :source AND folder = :folder AND uidvalidity = :uidvalidity"
_DUE = "state = 'claimed' AND parts <> '[]' AND (try_after IS NULL OR try_after <= now())"
# After the first failure and the second; `failures` is still the number before this one.
WAIT = f"now() + make_interval(secs => CASE failures WHEN 0 THEN {PATIENCE[0]} ELSE {PATIENCE[1]} END)"
_to_fetch = text(f"""
    SELECT id, uid, parts, received_at, try_after IS NOT NULL AS alone FROM mail_messages
    WHERE {AT_PLACE} AND {_DUE} AND uid > :after ORDER BY uid LIMIT :limit""")
_counts = text(f"""
    SELECT count(*) FILTER (WHERE state <> 'claimed') AS done, count(*) FILTER (WHERE {_DUE}) AS waiting,
        count(*) FILTER (WHERE state = 'claimed' AND NOT ({_DUE})) AS put_off
    FROM mail_messages WHERE mailbox_id = :mailbox_id AND (job_id = :job_id OR state = 'claimed')""")
_failed = text(f"""
    UPDATE mail_messages SET failures = failures + 1,
        try_after = {WAIT},
        state = CASE WHEN failures + 1 >= {TRIES} THEN 'failed' ELSE state END,
        reason = CASE WHEN failures + 1 >= {TRIES} THEN :reason ELSE reason END,
        finished_at = CASE WHEN failures + 1 >= {TRIES} THEN now() END
    WHERE id = :id AND state = 'claimed'""")
_alone = text("UPDATE mail_messages SET try_after = now() WHERE id = ANY(:ids) AND state = 'claimed'")
_to_act = text(f"""
    SELECT id, uid FROM mail_messages
    WHERE {AT_PLACE} AND state IN ('stored', 'duplicate') AND acted_at IS NULL ORDER BY uid LIMIT :limit""")
_acted = text("UPDATE mail_messages SET acted_at = now() WHERE id = ANY(:ids) AND acted_at IS NULL")


class Place(NamedTuple):
    """A folder of an account on a server, as it is numbered now."""

    mailbox_id: UUID
    source: str
    folder: str
    uidvalidity: int


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    uid: int
    parts: list[Part]
    received_at: datetime | None
    alone: bool  # a connection broke off at it, or at others together with it


class Counts(NamedTuple):
    """Of the messages that a job found and of those that were left to it."""

    done: int
    waiting: int
    put_off: int  # until later jobs, because the connection broke off at them

    @property
    def total(self) -> int:
        return self.done + self.waiting

    def __str__(self) -> str:
        said = f"{self.done} of {self.total} messages" if self.total else "nothing new"
        return f"{said}, {self.put_off} to be tried again later" if self.put_off else said


def to_fetch(connection: Connection, place: Place, after: int, limit: int) -> list[Claimed]:
    """Those that are claimed and whose turn it is, whichever job found them, in the order of their numbers."""
    rows = connection.execute(_to_fetch, {**place._asdict(), "after": after, "limit": limit})
    return [msgspec.convert(dict(row._mapping), Claimed) for row in rows]


def counts(connection: Connection, mailbox_id: UUID, job_id: UUID) -> Counts:
    row = connection.execute(_counts, {"mailbox_id": mailbox_id, "job_id": job_id}).one()
    return Counts(row.done, row.waiting, row.put_off)


def note_failure(connection: Connection, message_id: UUID, reason: Skipped) -> None:
    """The connection broke off while this one alone was read: it is put off, the third time it counts as bad."""
    connection.execute(_failed, {"id": message_id, "reason": str(reason)})


def read_alone(connection: Connection, ids: Sequence[UUID]) -> None:
    """The connection broke off at one of them: each comes by itself the next time, and nothing is counted."""
    connection.execute(_alone, {"ids": list(ids)})


def to_act(connection: Connection, place: Place, limit: int) -> list[tuple[UUID, int]]:
    """(id, uid) of those whose recordings are kept and whose after-action is still to be done."""
    return [(row.id, row.uid) for row in connection.execute(_to_act, {**place._asdict(), "limit": limit})]


def acted(connection: Connection, ids: Sequence[UUID]) -> None:
    connection.execute(_acted, {"ids": list(ids)})

"""Messages: claimed once, by the place they are at, before anything of them is fetched; and what became of them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection, text

from domain.identity import new_id
from domain.recordings.mail import Message, Part
from domain.recordings.mailboxes import MessageState, Skipped

TRIES = 3  # of one message that cannot be read; then it counts as bad, and no run is held up by it again

_known = text("""
    SELECT uid FROM mail_messages WHERE mailbox_id = :mailbox_id AND folder = :folder AND uidvalidity = :uidvalidity
        AND uid = ANY(:uids)""")
_claim = text("""
    INSERT INTO mail_messages (id, mailbox_id, folder, uidvalidity, uid, state, reason, message_id, fingerprint,
        received_at, size, parts, job_id, finished_at)
    VALUES (:id, :mailbox_id, :folder, :uidvalidity, :uid, :state, :reason, :message_id, :fingerprint,
        :received_at, :size, CAST(:parts AS jsonb), :job_id, CASE WHEN :state <> 'claimed' THEN now() END)
    ON CONFLICT (mailbox_id, folder, uidvalidity, uid) DO NOTHING""")
# Of the times the folder was numbered differently, the one that knew most of them.
_before = text("""
    SELECT fingerprint, max(number) AS number FROM (
        SELECT fingerprint, count(*) AS number FROM mail_messages
        WHERE mailbox_id = :mailbox_id AND folder = :folder AND uidvalidity <> :uidvalidity
            AND state IN ('stored', 'duplicate', 'skipped') AND fingerprint = ANY(:fingerprints)
        GROUP BY uidvalidity, fingerprint) AS counted
    GROUP BY fingerprint""")
_to_fetch = text("""
    SELECT id, uid, parts, received_at FROM mail_messages
    WHERE mailbox_id = :mailbox_id AND folder = :folder AND uidvalidity = :uidvalidity AND state = 'claimed'
        AND uid > :after ORDER BY uid LIMIT :limit""")
_counts = text("""
    SELECT count(*) FILTER (WHERE state <> 'claimed') AS done, count(*) AS total FROM mail_messages
    WHERE mailbox_id = :mailbox_id AND (job_id = :job_id OR state = 'claimed')""")
# What waits from the time the folder was numbered differently is found again under its new number.
_give_up_old = text("""
    UPDATE mail_messages SET state = 'skipped', reason = 'gone', finished_at = now()
    WHERE mailbox_id = :mailbox_id AND state = 'claimed' AND (folder <> :folder OR uidvalidity <> :uidvalidity)""")
_finish = text("""
    UPDATE mail_messages SET state = :state, reason = :reason, finished_at = now()
    WHERE id = :id AND state = 'claimed'""")
_failed = text("""
    UPDATE mail_messages SET failures = failures + 1,
        state = CASE WHEN failures + 1 >= :tries THEN 'failed' ELSE state END,
        reason = CASE WHEN failures + 1 >= :tries THEN :reason ELSE reason END,
        finished_at = CASE WHEN failures + 1 >= :tries THEN now() END
    WHERE id = :id AND state = 'claimed'""")
_hold = text("SELECT FROM mail_messages WHERE id = :id AND state = 'claimed' FOR NO KEY UPDATE")
_to_act = text("""
    SELECT id, uid FROM mail_messages
    WHERE mailbox_id = :mailbox_id AND folder = :folder AND uidvalidity = :uidvalidity
        AND state IN ('stored', 'duplicate') AND acted_at IS NULL ORDER BY uid LIMIT :limit""")
_acted = text("UPDATE mail_messages SET acted_at = now() WHERE id = ANY(:ids) AND acted_at IS NULL")


class Place(NamedTuple):
    """A folder as it is numbered now."""

    mailbox_id: UUID
    folder: str
    uidvalidity: int


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    uid: int
    parts: list[Part]
    received_at: datetime | None


def known(connection: Connection, place: Place, uids: Sequence[int]) -> set[int]:
    """Those of the messages that were claimed, whatever became of them."""
    return set(connection.execute(_known, {**place._asdict(), "uids": list(uids)}).scalars())


def claim(
    connection: Connection,
    place: Place,
    job_id: UUID,
    found: Sequence[Message],
    skipped: Sequence[tuple[int, Skipped]],
    largest: int,
) -> None:
    """Claim messages that were found, and record those that are not to be fetched. Needs a transaction.

    One that was there under another UIDVALIDITY is not fetched again, as far as that can be told without fetching:
    where more of the same are there now than were then, the audio has to decide.
    """
    connection.execute(_give_up_old, place._asdict())
    fingerprints = Counter(one.fingerprint for one in found if one.fingerprint is not None)
    rows = connection.execute(_before, {**place._asdict(), "fingerprints": list(fingerprints)})
    before = {row.fingerprint: row.number for row in rows}
    for message in found:
        state, reason = MessageState.CLAIMED, None
        fingerprint = message.fingerprint
        if fingerprint is not None and before.get(fingerprint, 0) >= fingerprints[fingerprint]:
            state, reason = MessageState.DUPLICATE, Skipped.SAME_MESSAGE
        elif any(part.octets > largest for part in message.parts):
            state, reason = MessageState.SKIPPED, Skipped.TOO_LARGE
        _insert(connection, place, job_id, message, state, reason)
    for uid, why in skipped:
        nothing = Message(uid=uid, message_id=None, subject="", sender="", received_at=None, size=0, parts=[])
        state = MessageState.FAILED if why is Skipped.UNREADABLE else MessageState.SKIPPED
        _insert(connection, place, job_id, nothing, state, why)


def _insert(
    connection: Connection, place: Place, job_id: UUID, message: Message, state: MessageState, reason: Skipped | None
) -> None:
    values = place._asdict() | {
        "id": new_id(),
        "uid": message.uid,
        "state": str(state),
        "reason": reason and str(reason),
        "message_id": message.message_id and message.message_id[:1000],
        "fingerprint": message.fingerprint,
        "received_at": message.received_at,
        "size": message.size,
        "parts": msgspec.json.encode(message.parts).decode(),
        "job_id": job_id,
    }
    connection.execute(_claim, values)


def to_fetch(connection: Connection, place: Place, after: int, limit: int) -> list[Claimed]:
    """Those that are claimed and not done with, whichever job found them, in the order of their numbers."""
    rows = connection.execute(_to_fetch, {**place._asdict(), "after": after, "limit": limit})
    return [msgspec.convert(dict(row._mapping), Claimed) for row in rows]


def counts(connection: Connection, mailbox_id: UUID, job_id: UUID) -> tuple[int, int]:
    """(done, all) of the messages that the job found and of those that were left to it."""
    row = connection.execute(_counts, {"mailbox_id": mailbox_id, "job_id": job_id}).one()
    return row.done, row.total


def hold(connection: Connection, message_id: UUID) -> bool:
    """Whether it is still to be done, held until the end of the transaction: of two at once, one is too late."""
    return connection.execute(_hold, {"id": message_id}).first() is not None


def finish(connection: Connection, message_id: UUID, state: MessageState, reason: Skipped | None = None) -> None:
    connection.execute(_finish, {"id": message_id, "state": str(state), "reason": reason and str(reason)})


def note_failure(connection: Connection, message_id: UUID, reason: Skipped) -> None:
    """It could not be read this time; the third time is the last."""
    connection.execute(_failed, {"id": message_id, "reason": str(reason), "tries": TRIES})


def to_act(connection: Connection, place: Place, limit: int) -> list[tuple[UUID, int]]:
    """(id, uid) of those whose recordings are kept and whose after-action is still to be done."""
    return [(row.id, row.uid) for row in connection.execute(_to_act, {**place._asdict(), "limit": limit})]


def acted(connection: Connection, ids: Sequence[UUID]) -> None:
    connection.execute(_acted, {"ids": list(ids)})

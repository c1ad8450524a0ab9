"""Claiming: a message is taken once, by the place it is at, before anything of it is fetched.

Known is what was decided about: its recordings are kept, or a rule or its content refused it. A claim that was given
up because the place went away (another folder, another account, other numbers) decides nothing, and is withdrawn.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, text

from domain.identity import new_id
from domain.recordings.mail import Message, Part
from domain.recordings.mailboxes import MessageState, Skipped
from storage.recordings.messages import AT_PLACE, TRIES, WAIT, Place

_UNDESCRIBED = "state = 'claimed' AND parts = '[]'"
# Asked by hand, what failed and what was refused for its content is looked at again; after other rules, all.
_known = text(f"""
    SELECT uid FROM mail_messages WHERE {AT_PLACE} AND uid = ANY(:uids) AND NOT (
        {_UNDESCRIBED} AND (:again OR try_after <= now())
        OR state = 'failed' AND :again
        OR state = 'skipped' AND reason <> 'long_description' AND :again
        OR state <> 'claimed' AND pattern IS DISTINCT FROM :pattern)""")
_undescribed = text(f"""
    SELECT uid FROM mail_messages WHERE {AT_PLACE} AND {_UNDESCRIBED} AND (:again OR try_after <= now())""")
_there = text(f"""
    SELECT id, uid, state, parts, decided FROM mail_messages WHERE {AT_PLACE} AND uid = ANY(:uids) FOR NO KEY UPDATE""")
_insert = text("""
    INSERT INTO mail_messages (id, mailbox_id, source, folder, uidvalidity, uid, state, reason, message_id, fingerprint,
        received_at, size, parts, pattern, job_id, finished_at)
    VALUES (:id, :mailbox_id, :source, :folder, :uidvalidity, :uid, :state, :reason, :message_id, :fingerprint,
        :received_at, :size, CAST(:parts AS jsonb), :pattern, :job_id, CASE WHEN :state <> 'claimed' THEN now() END)
    ON CONFLICT (mailbox_id, source, folder, uidvalidity, uid) DO NOTHING""")
_reopen = text("""
    UPDATE mail_messages SET state = 'claimed', reason = NULL, finished_at = NULL, failures = 0, try_after = NULL,
        fingerprint = :fingerprint, parts = CAST(:parts AS jsonb), decided = :decided, pattern = :pattern,
        job_id = :job_id
    WHERE id = :id""")
_looked = text("UPDATE mail_messages SET pattern = :pattern WHERE id = :id")
# Of the times the folder was numbered differently, the one in which most of them were kept.
_before = text("""
    SELECT fingerprint, max(number) AS number FROM (
        SELECT fingerprint, count(*) AS number FROM mail_messages
        WHERE mailbox_id = :mailbox_id AND source = :source AND folder = :folder AND uidvalidity <> :uidvalidity
            AND state IN ('stored', 'duplicate') AND fingerprint = ANY(:fingerprints)
        GROUP BY uidvalidity, fingerprint) AS counted
    GROUP BY fingerprint""")
_broken = text(f"""
    INSERT INTO mail_messages AS known (id, mailbox_id, source, folder, uidvalidity, uid, pattern, job_id, failures,
        try_after)
    SELECT :id, :mailbox_id, :source, :folder, :uidvalidity, :uid, :pattern, :job_id, 1, {WAIT} FROM (SELECT 0) AS first
        (failures)
    ON CONFLICT (mailbox_id, source, folder, uidvalidity, uid) DO UPDATE SET failures = known.failures + 1,
        try_after = {WAIT.replace("failures", "known.failures")},
        state = CASE WHEN known.failures + 1 >= {TRIES} THEN 'failed' ELSE known.state END,
        reason = CASE WHEN known.failures + 1 >= {TRIES} THEN 'unreadable' END,
        finished_at = CASE WHEN known.failures + 1 >= {TRIES} THEN now() END
    WHERE known.state = 'claimed' AND known.parts = '[]'""")
_described_now = text(f"DELETE FROM mail_messages WHERE {AT_PLACE} AND {_UNDESCRIBED} AND uid = ANY(:uids)")
_forgive = text(f"""
    UPDATE mail_messages SET failures = 0, try_after = now()
    WHERE {AT_PLACE} AND state = 'claimed' AND parts <> '[]' AND failures > 0""")
# One of which earlier rules have taken something is what it was; when it is seen again, all but that is asked for.
_give_back = """
    UPDATE mail_messages SET state = 'stored', finished_at = now(), parts = '[]', pattern = NULL
    WHERE mailbox_id = :mailbox_id AND state = 'claimed' AND decided <> '{{}}' AND ({where})"""
_withdraw = "DELETE FROM mail_messages WHERE mailbox_id = :mailbox_id AND state = 'claimed' AND ({where})"
_ELSEWHERE = "source <> :source OR folder <> :folder OR uidvalidity <> :uidvalidity"
_everywhere = [text(statement.format(where="TRUE")) for statement in (_give_back, _withdraw)]
_elsewhere = [text(statement.format(where=_ELSEWHERE)) for statement in (_give_back, _withdraw)]


class Seen(NamedTuple):
    """What a look at descriptions has found."""

    found: Sequence[Message]
    bad: Sequence[tuple[int, Skipped]]  # not to be made sense of
    broken: Sequence[int]  # the server broke off at them, each by itself
    looked: Sequence[int]  # all that were looked at, those of which nothing is wanted too


def known(connection: Connection, place: Place, uids: Sequence[int], pattern: str, *, again: bool) -> set[int]:
    """Those of the messages that need no look: they were decided about with this pattern, or wait to be fetched.

    ``again``: somebody asks by hand, and what was not taken is tried once more.
    """
    values = {**place._asdict(), "uids": list(uids), "pattern": pattern, "again": again}
    return set(connection.execute(_known, values).scalars())


def undescribed(connection: Connection, place: Place, *, again: bool) -> set[int]:
    """Those at whose description the server broke off, and whose turn it is again."""
    return set(connection.execute(_undescribed, {**place._asdict(), "again": again}).scalars())


def claim(
    connection: Connection, place: Place, job_id: UUID, seen: Seen, *, pattern: str, largest: int, again: bool
) -> None:
    """Claim messages that were found, and record those that are not to be fetched. Needs a transaction.

    One that was kept under another UIDVALIDITY is not fetched again, as far as that can be told without fetching:
    where more of the same are there now than were then, the audio has to decide.
    """
    values = {**place._asdict(), "pattern": pattern, "job_id": job_id}
    for statement in _elsewhere:
        connection.execute(statement, place._asdict())
    if again:
        connection.execute(_forgive, place._asdict())
    described = set(seen.looked) - set(seen.broken)
    connection.execute(_described_now, {**place._asdict(), "uids": list(described)})
    there = {row.uid: row for row in connection.execute(_there, {**values, "uids": [one.uid for one in seen.found]})}
    fingerprints = Counter(one.fingerprint for one in seen.found if one.fingerprint is not None)
    rows = connection.execute(_before, {**place._asdict(), "fingerprints": list(fingerprints)})
    before = {row.fingerprint: row.number for row in rows}
    for message in seen.found:
        state, reason = MessageState.CLAIMED, None
        fingerprint = message.fingerprint
        if message.uid in there:
            _look_again(connection, values, there[message.uid], message, largest)
            continue
        if fingerprint is not None and before.get(fingerprint, 0) >= fingerprints[fingerprint]:
            state, reason = MessageState.DUPLICATE, Skipped.SAME_MESSAGE
        elif not _fits_any(message.parts, largest):
            state, reason = MessageState.SKIPPED, Skipped.TOO_LARGE
        connection.execute(_insert, values | _row(message, state, reason))
    for uid, why in seen.bad:
        nothing = Message(uid=uid, message_id=None, subject="", sender="", received_at=None, size=0, parts=[])
        state = MessageState.FAILED if why is Skipped.UNREADABLE else MessageState.SKIPPED
        connection.execute(_insert, values | _row(nothing, state, why))
    for uid in seen.broken:
        connection.execute(_broken, values | {"id": new_id(), "uid": uid})


def withdraw(connection: Connection, mailbox_id: UUID) -> None:
    """Nothing waits to be fetched any more: what the mailbox is, or what its rules want, has changed."""
    for statement in _everywhere:
        connection.execute(statement, {"mailbox_id": mailbox_id})


def _look_again(
    connection: Connection, values: dict[str, object], row: Row[tuple[object, ...]], message: Message, largest: int
) -> None:
    """One that is known: what was not taken of it, and is wanted now, is claimed."""
    if row.state == MessageState.CLAIMED:
        return
    taken = row.state in (MessageState.STORED, MessageState.DUPLICATE)
    decided = {*row.decided, *(part["number"] for part in row.parts if taken)}
    left = [part for part in message.parts if part.number not in decided]
    if not _fits_any(left, largest):
        connection.execute(_looked, values | {"id": row.id})
        return
    more = {"id": row.id, "fingerprint": message.fingerprint, "parts": _encoded(left), "decided": sorted(decided)}
    connection.execute(_reopen, values | more)


def _fits_any(parts: Sequence[Part], largest: int) -> bool:
    return any(part.octets <= largest for part in parts)


def _row(message: Message, state: MessageState, reason: Skipped | None) -> dict[str, object]:
    return {
        "id": new_id(),
        "uid": message.uid,
        "state": str(state),
        "reason": reason and str(reason),
        "message_id": message.message_id and message.message_id[:1000],
        "fingerprint": message.fingerprint,
        "received_at": message.received_at,
        "size": message.size,
        "parts": _encoded(message.parts),
    }


def _encoded(parts: Sequence[Part]) -> str:
    return msgspec.json.encode(parts).decode()

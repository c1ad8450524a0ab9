"""Calls as the exchange tells of them and recordings as mailboxes bring them, in this process's database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import text

from domain.identity import new_id
from domain.recordings.calls import CallWithLegs
from domain.recordings.mango import Kind
from domain.recordings.phones import normalised
from stack.exchange import Notification, inbound_call
from storage.database import autocommit, transaction
from storage.recordings import calls, mango, matching
from tests.job_rows import account
from workers.recordings.mango import apply_waiting

CALLER, LINE = "79161234567", "74951234567"
BEGAN = datetime(2025, 9, 15, 11, 40, tzinfo=UTC)
HOME = ZoneInfo("Europe/Moscow")


def clear() -> None:
    with autocommit() as connection:
        for table in ("recordings", "calls", "mango_deliveries"):
            connection.execute(text(f"DELETE FROM {table}"))


def keep(kind: Kind, message: dict[str, Any] | bytes) -> int | None:
    raw = message if isinstance(message, bytes) else msgspec.json.encode(message)
    with autocommit() as connection:
        return mango.keep(connection, kind, raw, "81.88.80.132")


def deliver(*sent: Notification) -> None:
    for kind, message in sent:
        keep(kind, message)
    apply_waiting(age=0)


def called(**changes: Any) -> CallWithLegs:
    """A call from CALLER by LINE that is over, as the database has it."""
    values = {"caller": CALLER, "line": LINE, "began_at": BEGAN, "talk_seconds": 60, **changes}
    sent = list(inbound_call(**values))
    deliver(*sent)
    return of_entry(sent[0][1]["entry_id"])


def summarised(direction: int, **fields: Any) -> CallWithLegs:
    """A call of which there is the summary alone."""
    entry, second = str(new_id()), int(BEGAN.timestamp())
    times = {"create_time": second, "talk_time": second + 5, "end_time": second + 65}
    deliver((Kind.SUMMARY, {"entry_id": entry, "call_direction": direction, **times, **fields}))
    return of_entry(entry)


def of_entry(entry_id: str) -> CallWithLegs:
    with autocommit() as connection:
        call_id = connection.execute(text("SELECT id FROM calls WHERE entry_id = :id"), {"id": entry_id}).scalar_one()
        found = calls.one(connection, call_id, None)
    assert found is not None
    return found


def everything() -> dict[str, Any]:
    """All calls by the exchange's id, but for what is ours: ids and times of rows."""
    with autocommit() as connection:
        ids = connection.execute(text("SELECT id FROM calls")).scalars().all()
        found = [calls.one(connection, call_id, None) for call_id in ids]
    ours = ("id", "created_at", "updated_at", "recordings")
    return {
        one.entry_id: {name: value for name, value in msgspec.structs.asdict(one).items() if name not in ours}
        for one in found
        if one is not None
    }


def recorded(
    at: datetime | None = BEGAN, numbers: tuple[str | None, str | None] = (CALLER, LINE), owner: UUID | None = None
) -> UUID:
    """A recording as a mailbox brings it; numbers as its name has them."""
    recording = new_id()
    with autocommit() as connection:
        connection.execute(
            text("""
                INSERT INTO recordings (id, owner_id, object_key, name, content_type, size, sha256, from_number,
                    to_number, started_at, received_at)
                VALUES (:id, :owner, :key, 'a.mp3', 'audio/mpeg', 3, :key, :from, :to, :at, now())"""),
            {
                "id": recording,
                "owner": owner or account(),
                "key": f"recordings/{recording}",
                "from": normalised(numbers[0]),
                "to": normalised(numbers[1]),
                "at": at,
            },
        )
    return recording


def match(*recordings: UUID) -> int:
    with transaction() as connection:
        return matching.match_new(connection, recordings)


def row(recording: UUID) -> Any:
    with autocommit() as connection:
        return connection.execute(text("SELECT * FROM recordings WHERE id = :id"), {"id": recording}).one()


def call_of(recording: UUID) -> UUID | None:
    found: UUID | None = row(recording).call_id
    return found


def after(**lapse: float) -> datetime:
    return BEGAN + timedelta(**lapse)


def link(recording: UUID, call: UUID | None, owner: UUID | None = None) -> None:
    with transaction() as connection:
        matching.link(connection, recording, call, owner_id=owner)

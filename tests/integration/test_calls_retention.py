"""Calls and what was delivered of them go when their time is over, all of a call together; messages are counted."""

from collections.abc import Iterator
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import text

from domain.identity import new_id
from domain.recordings.mango import Kind
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import gauges
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.recordings import expiry, mango
from tests.job_rows import account
from tests.mail_visits import rows
from workers import recordings
from workers.recordings.mango import apply

DAY = 24 * 3600.0


@pytest.fixture(scope="module", autouse=True)
def house(in_process: Stack) -> Stack:
    upgrade()
    return in_process


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    with autocommit() as connection:
        for table in ("recordings", "mailboxes", "calls", "mango_deliveries"):
            connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture
def a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is kept for seven days."""
    kept = {"call_retention_seconds": 7 * DAY, "mango_retention_seconds": 7 * DAY}
    config = msgspec.structs.replace(settings(), **kept)
    monkeypatch.setattr(recordings, "settings", lambda: config)


def told(entry: str, state: str, seq: int, days_ago: float = 0) -> None:
    """A delivery, applied, as if it had come so long ago."""
    message = {
        **{"entry_id": entry, "call_id": f"{entry}-1", "timestamp": 1_757_936_000 + seq, "seq": seq},
        **{"call_state": state, "location": "abonent", "from": {"number": "79161234567"}},
        "to": {"number": "74951234567", "line_number": "74951234567"},
    }
    with transaction() as connection:
        delivery = mango.keep(connection, Kind.CALL, msgspec.json.encode(message), "81.88.80.132")
        assert delivery is not None
    apply(str(delivery))
    with transaction() as connection:
        values = {"id": delivery, "entry": entry, "days": days_ago}
        for table, at, where in (
            ("mango_deliveries", "received_at", "id = :id"),
            ("calls", "created_at", "entry_id = :entry"),
        ):
            connection.execute(
                text(f"UPDATE {table} SET {at} = LEAST({at}, now() - :days * interval '1 day') WHERE {where}"), values
            )


def calls() -> set[str]:
    return {one["entry_id"] for one in rows("SELECT entry_id FROM calls")}


def deliveries() -> dict[str, int]:
    found = rows("SELECT entry_id, count(*) AS number FROM mango_deliveries GROUP BY entry_id")
    return {one["entry_id"]: one["number"] for one in found}


def recording_of(entry: str, owner: UUID) -> None:
    with transaction() as connection:
        connection.execute(
            text("""
                INSERT INTO recordings (id, owner_id, object_key, name, content_type, size, sha256, received_at, status,
                    matched_by, call_id)
                SELECT :id, :owner, 'recordings/1', 'a', 'audio/wav', 1, 'x', now(), 'matched', 'hand', calls.id
                FROM calls WHERE entry_id = :entry"""),
            {"id": new_id(), "owner": owner, "entry": entry},
        )


def test_by_default_everything_stays() -> None:
    told("old", "Appeared", 1, days_ago=4000)
    recordings.remove_old()
    assert (calls(), deliveries()) == ({"old"}, {"old": 1})


def test_what_is_old_goes_and_a_call_with_a_recording_stays(a_week: None) -> None:
    for entry, days in (("old", 9), ("recorded", 9), ("new", 5)):
        told(entry, "Appeared", 1, days_ago=days)
    recording_of("recorded", account())
    recordings.remove_old()
    assert (calls(), deliveries()) == ({"recorded", "new"}, {"new": 1})


def test_deliveries_of_a_call_go_together(a_week: None) -> None:
    told("long", "Appeared", 1, days_ago=9)
    told("long", "Connected", 2, days_ago=6)
    recordings.remove_old()
    assert deliveries() == {"long": 2}, "of a part another call would be made"


def test_what_comes_after_that_changes_nothing(a_week: None) -> None:
    told("late", "Appeared", 1, days_ago=9)
    told("late", "Connected", 2, days_ago=9)
    recording_of("late", account())
    before = rows("SELECT began_at, answered_at, outcome FROM calls")
    recordings.remove_old()
    assert deliveries() == {}
    told("late", "Disconnected", 3)
    assert rows("SELECT began_at, answered_at, outcome FROM calls") == before
    assert deliveries() == {"late": 1}


def test_what_waits_stays_and_batches_are_bounded(a_week: None) -> None:
    with transaction() as connection:
        mango.keep(connection, Kind.CALL, b"waits", "81.88.80.132")
        connection.execute(text("UPDATE mango_deliveries SET received_at = now() - interval '9 days'"))
    for n in range(3):
        told(f"old {n}", "Appeared", 1, days_ago=9)
    with autocommit() as connection:
        assert expiry.remove_calls(connection, 7 * DAY, 2) == 2
        assert expiry.remove_deliveries(connection, 7 * DAY, 2) == 2
    recordings.remove_old()
    assert (calls(), deliveries()) == (set(), {None: 1})


def test_messages_are_counted_as_they_change() -> None:
    with autocommit() as connection:
        values = {"id": new_id(), "owner": account()}
        connection.execute(
            text("""
                INSERT INTO mailboxes (id, owner_id, host, port, security, auth, username, secret, folder, rules,
                    time_zone, after_action, poll_seconds, enabled)
                VALUES (:id, :owner, 'h', 1, 'tls', 'password', 'u', 's', 'INBOX', '{}', 'UTC', 'none', 300, TRUE)"""),
            values,
        )
        connection.execute(
            text("""
                INSERT INTO mail_messages (id, mailbox_id, source, folder, uidvalidity, uid)
                SELECT gen_random_uuid(), :id, 'u@h:1', 'INBOX', 1, n FROM generate_series(1, 1000) AS n"""),
            values,
        )
        connection.execute(
            text("UPDATE mail_messages SET state = 'stored', finished_at = now() WHERE uid <= 400"), values
        )
        connection.execute(text("UPDATE mail_messages SET acted_at = now() WHERE uid <= 400"))
        connection.execute(text("DELETE FROM mail_messages WHERE uid BETWEEN 391 AND 410"))
        assert _counted() == {"claimed": 590, "stored": 390}
        assert gauges.standing().mailboxes[str(values["id"])].numbers == {"claimed": 590, "stored": 390}
        recordings.remove_old()
        assert _counted() == {"claimed": 590, "stored": 390}
        assert len(rows("SELECT FROM mail_message_counts")) == 2, "added up"
        connection.execute(text("DELETE FROM mailboxes"))
    assert _counted() == {}


def _counted() -> dict[str, int]:
    return {state: number for state, number in gauges.standing().mail_messages.items() if number}

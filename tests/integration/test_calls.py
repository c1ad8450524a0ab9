"""Calls in this process: what is applied, by whomever and in whatever order, and which recording finds which call."""

import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from domain.errors.requests import NotFound
from domain.identity import new_id
from domain.recordings.calls import CallWithLegs, Direction
from domain.recordings.mango import Kind
from domain.recordings.phones import normalised
from migrations.__main__ import upgrade
from stack.exchange import Notification, inbound_call
from stack.up import Stack
from storage import gauges
from storage.database import autocommit, transaction
from storage.recordings import calls, mango, matching
from tests.job_rows import account
from workers.recordings.mango import apply, apply_all, apply_waiting
from workers.recordings.matching import retry_unmatched

CALLER, LINE = "79161234567", "74951234567"
BEGAN = datetime(2025, 9, 15, 11, 40, tzinfo=UTC)
HOME = ZoneInfo("Europe/Moscow")


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def nothing_there() -> None:
    clear()


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


# ---------------------------------------------------------------- applying


SENT = [
    [*inbound_call(CALLER, LINE, BEGAN, rings=3)],
    [*inbound_call("74990000001", LINE, after(seconds=20), talk_seconds=0)],
    [*inbound_call("74990000002", "74951112233", after(minutes=3), rings=1)],
]
FLAT = [one for call in SENT for one in call]


@pytest.fixture(scope="module")
def in_order(database: None) -> dict[str, Any]:
    clear()
    for one in FLAT:
        deliver(one)
    return everything()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_shuffled_doubled_and_applied_by_two_there_is_one_final_state(in_order: dict[str, Any], seed: int) -> None:
    clear()
    chance = random.Random(seed)
    sent = FLAT + chance.choices(FLAT, k=len(FLAT) // 2)
    chance.shuffle(sent)
    failed: list[BaseException] = []

    def side(mine: Sequence[Notification]) -> None:
        try:
            for kind, message in mine:
                number = keep(kind, message)
                if number is not None and chance.random() < 0.7:  # else the message was lost
                    apply(str(number))
            apply_waiting(age=0)
        except BaseException as error:
            failed.append(error)

    sides = [threading.Thread(target=side, args=(sent[place::2],)) for place in (0, 1)]
    for one in sides:
        one.start()
    for one in sides:
        one.join()
    apply_waiting(age=0)
    assert failed == []
    assert everything() == in_order
    with autocommit() as connection:
        assert connection.execute(text("SELECT count(*), count(applied_at) FROM mango_deliveries")).one() == (
            len(FLAT),
            len(FLAT),
        )


def test_every_leg_of_a_call_is_there_in_order(in_order: dict[str, Any]) -> None:
    call = in_order[SENT[0][0][1]["entry_id"]]
    assert [leg.call_id.rpartition("-")[2] for leg in call["legs"]] == ["ivr", "1", "2", "3"]
    assert call["direction"] is Direction.INBOUND
    assert len(in_order) == 3


def test_a_lost_message_loses_nothing() -> None:
    for kind, message in SENT[0]:
        keep(kind, message)
    apply_waiting()  # it waits for messages, which may still come
    assert everything() == {}
    assert waiting_gauge() == (0, 0)
    with autocommit() as connection:
        connection.execute(text("UPDATE mango_deliveries SET received_at = now() - interval '2 minutes'"))
    assert waiting_gauge() == (len(SENT[0]), 0)
    apply_waiting()
    assert len(everything()) == 1
    assert waiting_gauge() == (0, 0)


def waiting_gauge() -> tuple[int, int]:
    now = gauges.standing()
    return now.mango_waiting, now.mango_failed


def test_what_cannot_be_read_keeps_up_nothing_else() -> None:
    good = SENT[0]
    poison = [
        (Kind.CALL, b"\xff\x00 no json"),
        (Kind.SUMMARY, b'{"entry_id":"a"}'),
        (Kind.CALL, b'{"entry_id":"a","call_id":"\\u0000","timestamp":1,"seq":1,"call_state":"Appeared"}'),
    ]
    for kind, message in [poison[0], good[0], poison[1], *good[1:], poison[2]]:
        keep(kind, message)  # type: ignore[arg-type]
    apply_waiting(age=0)
    assert list(everything()) == [good[0][1]["entry_id"]]
    with autocommit() as connection:
        errors = connection.execute(text("SELECT error FROM mango_deliveries WHERE error IS NOT NULL")).scalars().all()
    assert len(errors) == 3
    assert waiting_gauge() == (0, 3)
    apply_waiting(age=0)
    assert waiting_gauge() == (0, 3), "they are left alone"


def test_a_fault_of_ours_costs_the_delivery_that_meets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = calls.folded

    def folded(entry_id: str, messages: Any) -> Any:
        if any(getattr(one, "disconnect_reason", None) == 1111 for one in messages):
            raise ArithmeticError("nobody thought of that")
        return real(entry_id, messages)

    monkeypatch.setattr(calls, "folded", folded)
    deliver(*SENT[1])  # two of its legs ended so
    deliver(*SENT[2])
    assert len(everything()) == 2
    assert waiting_gauge() == (0, 2)
    monkeypatch.undo()
    with autocommit() as connection:
        connection.execute(text("UPDATE mango_deliveries SET error = NULL"))
    apply_waiting(age=0)
    again = everything()
    clear()
    deliver(*SENT[1], *SENT[2])
    assert everything() == again


def test_what_calls_are_not_made_of_is_kept_and_done_with() -> None:
    keep(Kind.OTHER, b'{"sms":"hello"}')
    apply_waiting(age=0)
    assert everything() == {}
    assert waiting_gauge() == (0, 0)


def test_a_repeat_is_known_by_its_content() -> None:
    kind, message = SENT[0][0]
    first = keep(kind, message)
    assert first is not None
    assert keep(kind, message) is None
    assert keep(Kind.OTHER, message) is not None
    with autocommit() as connection:
        assert mango.one(connection, first) == (first, kind, msgspec.json.encode(message))
    apply_all([])
    apply(str(first))
    apply(str(first))
    apply("123456789")
    assert len(everything()) == 1


# ---------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("at", "numbers", "fits"),
    [
        (BEGAN, (CALLER, LINE), True),
        (BEGAN, ("8 916 123-45-67", "84951234567"), True),
        (after(minutes=5), (CALLER, LINE), True),
        (after(minutes=-5), (CALLER, LINE), True),
        # the call waited, so that the talk began 22 s after it
        (after(minutes=5, seconds=22), (CALLER, LINE), True),
        (after(minutes=5, seconds=23), (CALLER, LINE), False),
        (after(minutes=-5, seconds=-1), (CALLER, LINE), False),
        (after(hours=3), (CALLER, LINE), False),
        (datetime(2025, 9, 15, 14, 40, tzinfo=HOME), (CALLER, LINE), True),
        (datetime(2025, 9, 15, 11, 40, tzinfo=HOME), (CALLER, LINE), False),
        (BEGAN, (LINE, CALLER), False),
        (BEGAN, (CALLER, "74951234568"), False),
        (BEGAN, ("79161234568", LINE), False),
        (BEGAN, (CALLER, "102"), False),
        (BEGAN, (CALLER, None), False),
        (BEGAN, (None, None), False),
        (None, (CALLER, LINE), False),
    ],
)
def test_by_two_numbers_and_the_time(at: datetime | None, numbers: tuple[str | None, str | None], fits: bool) -> None:
    call, recording = called(), recorded(at, numbers)
    assert match(recording) == fits
    assert call_of(recording) == (call.id if fits else None)
    found = row(recording)
    assert (found.status, found.matched_by, found.matched_at is not None) == (
        ("matched", "rule", True) if fits else ("unmatched", None, False)
    )


@pytest.mark.parametrize(
    ("direction", "numbers", "fits"),
    [
        (1, (CALLER, LINE), True),
        (1, (CALLER, "74950000101"), True),
        (1, (LINE, CALLER), False),
        (2, (LINE, "79031112233"), True),
        (2, (CALLER, "79031112233"), True),
        (2, (CALLER, LINE), False),
        (0, (CALLER, "74950000101"), True),
        (0, (CALLER, LINE), False),
        (9, (CALLER, LINE), True),
    ],
)
def test_the_direction_says_which_number_is_ours(direction: int, numbers: tuple[str, str], fits: bool) -> None:
    """From CALLER, by LINE; to 101 inbound, to a mobile outbound."""
    callee = {"number": "79031112233"} if direction == 2 else {"extension": "101", "number": "74950000101"}
    call = summarised(direction, to=callee, line_number=LINE, **{"from": {"number": CALLER}})
    recording = recorded(BEGAN, numbers)
    assert match(recording) == fits
    assert call_of(recording) == (call.id if fits else None)


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2025-10-26T01:59:30", "2025-10-25T23:59:30"),  # summer time, its last hour but one
        ("2025-10-26T03:00:30", "2025-10-26T02:00:30"),  # winter time
        ("2025-03-30T01:59:30", "2025-03-30T00:59:30"),
        ("2025-03-30T03:00:30", "2025-03-30T01:00:30"),
    ],
)
def test_clocks_that_are_changed(local: str, utc: str) -> None:
    """The name's time is local to the exchange; what is compared are instants."""
    began = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    call = called(began_at=began)
    others = [called(began_at=began + timedelta(hours=hours)) for hours in (-1, 1)]
    recording = recorded(datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Berlin")))
    assert match(recording) == 1
    assert call_of(recording) == call.id
    assert call.id not in {one.id for one in others}


def test_of_several_calls_the_nearest() -> None:
    made = {minutes: called(began_at=after(minutes=minutes), talk_seconds=10).id for minutes in (-4, -2, 1, 3)}
    recording = recorded(after(seconds=50))
    assert match(recording) == 1
    assert call_of(recording) == made[1]
    second = recorded(after(seconds=55))
    assert match(second) == 1
    assert call_of(second) == made[3], "the nearest is taken, and nobody is driven out"
    assert call_of(recording) == made[1]


def test_a_call_belongs_to_the_nearest_of_those_that_wait_whoever_is_asked_first() -> None:
    far, near = recorded(after(seconds=120)), recorded(after(seconds=10))
    call = called()
    match(far)
    assert (call_of(near), call_of(far)) == (call.id, None)
    assert row(far).match_tried_at is not None


def test_each_of_a_series_finds_its_own_in_any_order() -> None:
    times = [after(minutes=2 * number) for number in range(6)]
    recordings = [recorded(at) for at in times]
    made = [called(began_at=at, talk_seconds=5) for at in random.Random(1).sample(times, 6)]
    match(*recordings)
    by_time = {call.began_at: call.id for call in made}
    # each call, when it came, took the nearest that waited: its own
    assert [call_of(one) for one in recordings] == [by_time[at] for at in times]


def test_a_later_event_brings_the_match() -> None:
    recording = recorded()
    assert match(recording) == 0
    call = called()
    assert call_of(recording) == call.id
    assert [one.id for one in of_entry(call.entry_id).recordings] == [recording]


def test_a_summary_that_changes_the_numbers_brings_the_match() -> None:
    recording = recorded(BEGAN, (CALLER, "74950000101"))
    sent = list(inbound_call(CALLER, LINE, BEGAN))
    deliver(*(one for one in sent if one[0] is not Kind.SUMMARY))
    assert call_of(recording) is None
    summary = next(message for kind, message in sent if kind is Kind.SUMMARY)
    deliver((Kind.SUMMARY, {**summary, "to": {"extension": "102", "number": "74950000101"}}))
    assert call_of(recording) is not None


def test_the_tick_makes_up_for_what_died_between_a_call_and_its_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, old = recorded(), recorded(numbers=("79990000000", LINE))
    with autocommit() as connection:
        connection.execute(
            text("UPDATE recordings SET created_at = now() - interval '8 days' WHERE id = :id"), {"id": old}
        )
    monkeypatch.setattr("workers.recordings.mango.match_around", lambda _: None)
    call = called()
    called(caller="79990000000")
    assert call_of(recording) is None
    retry_unmatched()
    assert call_of(recording) == call.id
    assert call_of(old) is None, "given up after a week"
    tried = recorded(numbers=("74990000009", LINE))
    retry_unmatched()
    first = row(tried).match_tried_at
    retry_unmatched()
    assert row(tried).match_tried_at == first, "not again at once"


def test_two_at_once_give_a_call_one_recording() -> None:
    owner = account()
    for number in range(5):
        at = after(hours=number)
        recordings = [recorded(at + timedelta(seconds=one), owner=owner) for one in range(6)]
        call = called(began_at=at, talk_seconds=5)
        with autocommit() as connection:  # free again, so that all of them have to be matched anew
            connection.execute(text("UPDATE recordings SET status = 'unmatched', call_id = NULL, matched_by = NULL"))
        failed: list[BaseException] = []

        def one(mine: UUID, failed: list[BaseException] = failed) -> None:
            try:
                match(mine)
            except BaseException as error:
                failed.append(error)

        sides = [threading.Thread(target=one, args=(recording,)) for recording in recordings]
        for side in sides:
            side.start()
        for side in sides:
            side.join()
        assert failed == []
        matched = [one for one in recordings if call_of(one)]
        assert matched == [recordings[0]], "the nearest"
        assert call_of(recordings[0]) == call.id


def test_who_matches_at_the_same_time_waits_and_finds_the_call_taken() -> None:
    call, first = called(), recorded(after(seconds=30))
    ended: list[int | BaseException] = []

    def other(mine: UUID) -> None:
        try:
            ended.append(match(mine))
        except BaseException as error:
            ended.append(error)

    with transaction() as connection:
        assert matching.match_new(connection, [first]) == 1
        nearer = recorded()
        side = threading.Thread(target=other, args=(nearer,))
        side.start()
        side.join(0.3)
        assert ended == []
    side.join()
    assert ended == [0]
    assert (call_of(first), call_of(nearer)) == (call.id, None)


def test_of_a_call_that_nobody_asked_about_no_recording_is_chosen() -> None:
    """There may be another that is nearer."""
    first, second = called(), called(began_at=after(minutes=8))
    asked, between, near_second = recorded(), recorded(after(minutes=4)), recorded(after(minutes=8))
    match(asked)
    assert (call_of(asked), call_of(between)) == (first.id, None)
    match(near_second, between)
    assert (call_of(near_second), call_of(between)) == (second.id, None)


def test_the_database_itself_allows_one_by_rule() -> None:
    call, first, second = called(), recorded(), recorded()
    assert match(first, second) == 1
    with pytest.raises(IntegrityError, match="ix_recordings_by_rule"), autocommit() as connection:
        connection.execute(
            text("UPDATE recordings SET status = 'matched', matched_by = 'rule', call_id = :call WHERE id = :id"),
            {"call": call.id, "id": second if call_of(first) else first},
        )


# ---------------------------------------------------------------- by hand


def link(recording: UUID, call: UUID | None, owner: UUID | None = None) -> None:
    with transaction() as connection:
        matching.link(connection, recording, call, owner_id=owner)


def test_a_person_has_the_last_word() -> None:
    call, other = called(), called(caller="79990000000")
    recording, second = recorded(), recorded(after(seconds=30))
    match(recording)
    link(recording, other.id)
    assert (call_of(recording), row(recording).matched_by) == (other.id, "hand")
    link(second, other.id)
    assert len(of_entry(other.entry_id).recordings) == 2, "by hand a call may have several"
    link(second, None)
    assert (row(second).status, row(second).call_id, row(second).matched_by) == ("unmatched", None, "hand")
    assert match(second, recording) == 0, "what was taken off by hand is left alone"
    third = recorded(after(seconds=40))
    assert match(third) == 1
    assert call_of(third) == call.id, "which is free again"


def test_the_rule_leaves_alone_a_call_that_was_given_a_recording_by_hand() -> None:
    call, mine, late = called(), recorded(None, (None, None)), recorded()
    link(mine, call.id)
    assert match(late) == 0


def test_only_the_owner_or_an_admin_links() -> None:
    call, owner = called(), account()
    recording = recorded(owner=owner)
    with pytest.raises(NotFound):
        link(recording, call.id, owner=account())
    with pytest.raises(NotFound):
        link(new_id(), call.id)
    link(recording, call.id, owner=owner)
    assert call_of(recording) == call.id


# ---------------------------------------------------------------- reading


def page(owner: UUID | None = None, **filters: Any) -> list[str]:
    names = ("number", "direction", "since", "until", "answered", "matched", "after")
    with autocommit() as connection:
        values = {"limit": 100, **dict.fromkeys(names), **filters}
        return [one.entry_id for one in calls.page(connection, owner, **values)]


def test_the_list_can_be_narrowed() -> None:
    owner = account()
    first = called()
    second = called(caller="74990000001", began_at=after(hours=1), talk_seconds=0)
    third = summarised(2, line_number=LINE, to={"number": "79031112233"}, **{"from": {"extension": "105"}})
    a, b, c = first.entry_id, second.entry_id, third.entry_id
    recording = recorded(owner=owner)
    match(recording)
    assert page() == [c, b, a]
    assert page(after=third.id) == [b, a]
    assert page(number="+74951234567") == [c, b, a]
    assert page(number="+79031112233") == [c]
    assert page(number="101") == [b, a]
    assert page(direction=Direction.OUTBOUND) == [c]
    assert page(since=after(minutes=30)) == [b]
    assert page(until=after(minutes=30)) == [c, a]
    assert page(answered=False) == [b]
    assert page(matched=True) == [a]
    assert page(matched=False, answered=True) == [c]
    assert page(owner) == [a], "the calls their recordings belong to"
    assert page(account()) == []
    with autocommit() as connection:
        assert calls.one(connection, first.id, owner) is not None
        assert calls.one(connection, second.id, owner) is None

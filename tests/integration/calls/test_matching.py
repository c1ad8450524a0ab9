"""Which recording finds which call: by the rule, and by hand."""

import random
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from domain.errors.requests import NotFound
from domain.identity import new_id
from domain.recordings.mango import Kind
from stack.exchange import inbound_call
from storage.database import autocommit, transaction
from storage.recordings import matching
from tests.call_rows import (
    BEGAN,
    CALLER,
    HOME,
    LINE,
    after,
    call_of,
    called,
    deliver,
    link,
    match,
    of_entry,
    recorded,
    row,
    summarised,
)
from tests.job_rows import account
from workers.recordings.matching import retry_unmatched

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

"""What the exchange says is applied, by whomever and in whatever order, and how it reads afterwards."""

import random
import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from domain.recordings.calls import Direction
from domain.recordings.mango import Kind
from stack.exchange import Notification, inbound_call
from storage import gauges
from storage.database import autocommit
from storage.recordings import calls, mango
from tests.call_rows import (
    BEGAN,
    CALLER,
    LINE,
    after,
    called,
    clear,
    deliver,
    everything,
    keep,
    match,
    recorded,
    summarised,
)
from tests.job_rows import account
from workers.recordings.mango import apply, apply_all, apply_waiting

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

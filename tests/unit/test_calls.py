"""Notifications of the exchange: what is signed, what is read, and the call they add up to in any order."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.neighbours import BadSetting
from domain.errors.recordings import SignatureRefused
from domain.errors.requests import MalformedRequest
from domain.identity import new_id
from domain.recordings.calls import Direction, Leg, Outcome, Told
from domain.recordings.folding import folded
from domain.recordings.mango import CallEvent, Kind, Message, Party, RecordingEvent, form_of, kind_of, read, verified
from domain.recordings.matching import Pair, names_of, nearest
from domain.settings import from_environ
from stack.exchange import inbound_call
from tests.unit.test_openapi import NEEDED

KEY, SALT = "the-key", "the-salt"
BEGAN = datetime(2025, 9, 15, 11, 40, tzinfo=UTC)


def signed(text: str) -> str:
    return hashlib.sha256(f"{KEY}{text}{SALT}".encode()).hexdigest()


# ---------------------------------------------------------------- the signature


@pytest.mark.parametrize(
    "text",
    [
        '{"entry_id":"1"}',
        '{"from":{"number":"+7 916"},"discount":"100%","and":"a&b=c;d"}',
        '{"name":"Анна Петрова"}',
        '{"name":"\\u0410\\u043d\\u043d\\u0430"}',
        '{"path":"a\\/b","plus":"%2B","twice":"%252B"}',
        '{ "spaces" : 1,\r\n\t"lines":2 }',
        '{"a":1,"a":2}',
        "no json at all",
    ],
)
def test_the_signature_is_over_the_text_as_it_came(text: str) -> None:
    for encode in (quote_plus, quote):
        body = urlencode({"vpbx_api_key": KEY, "sign": signed(text), "json": text}, quote_via=encode).encode()
        assert verified(form_of(body), KEY, SALT) == text.encode()


def test_bytes_that_are_no_utf8_are_signed_as_they_are() -> None:
    raw = b'{"name":"\xc0\xed\xed\xe0"}'  # cp1251
    sign = hashlib.sha256(KEY.encode() + raw + SALT.encode()).hexdigest()
    escaped = "".join(f"%{byte:02x}" for byte in raw)
    assert verified(form_of(f"vpbx_api_key={KEY}&sign={sign}&json={escaped}".encode()), KEY, SALT) == raw


def test_what_was_written_anew_is_not_what_was_signed() -> None:
    text = '{"entry_id": "1", "name": "\\u0410"}'
    form = {"vpbx_api_key": KEY.encode(), "sign": signed(text).encode(), "json": text.encode()}
    assert verified(form, KEY, SALT)
    with pytest.raises(SignatureRefused):
        verified(form | {"json": json.dumps(json.loads(text)).replace(" ", "").encode()}, KEY, SALT)


@pytest.mark.parametrize(
    "change",
    [
        {"sign": b""},
        {"sign": signed("{}").upper().encode()},
        {"sign": signed("{}")[:-1].encode()},
        {"sign": "ы".encode()},
        {"vpbx_api_key": b"another"},
        {"vpbx_api_key": b""},
        {"json": b"{} "},
        {"json": b""},
    ],
)
def test_anything_else_is_refused(change: dict[str, bytes]) -> None:
    form = {"vpbx_api_key": KEY.encode(), "sign": signed("{}").encode(), "json": b"{}"}
    assert verified(form, KEY, SALT) == b"{}"
    with pytest.raises(SignatureRefused):
        verified({**form, **change}, KEY, SALT)


@pytest.mark.parametrize(("key", "salt"), [("", ""), (KEY, ""), ("", SALT)])
def test_what_is_not_set_refuses_everything(key: str, salt: str) -> None:
    sign = hashlib.sha256(f"{key}{{}}{salt}".encode()).hexdigest().encode()
    with pytest.raises(SignatureRefused):
        verified({"vpbx_api_key": key.encode(), "sign": sign, "json": b"{}"}, key, salt)
    with pytest.raises(SignatureRefused):
        verified({"sign": sign, "json": b"{}"}, key, salt)


@pytest.mark.parametrize("body", [b"json=1&json=2", b"&".join(b"a%d=" % number for number in range(17))])
def test_a_form_that_can_be_read_in_two_ways_is_not_read(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        form_of(body)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MANGO_API_KEY": "k"}, "MANGO_API_SALT"),
        ({"MANGO_API_SALT": "s"}, "MANGO_API_KEY"),
        ({"MANGO_ALLOWED_IPS": "81.88.80.132,here"}, "MANGO_ALLOWED_IPS"),
    ],
)
def test_half_a_setting_is_an_error_at_start(changes: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=f"^{said}"):
        from_environ({**NEEDED, **changes})
    assert len(from_environ(NEEDED).mango_networks) == 5


# ---------------------------------------------------------------- reading


def test_integers_may_come_as_text_and_text_as_integers() -> None:
    strings = {"entry_id": 17, "call_id": "b", "timestamp": "1757936400", "seq": "2", "call_state": "Connected"}
    event = read(Kind.CALL, msgspec.json.encode({**strings, "from": {"extension": 101}, "disconnect_reason": "1110"}))
    assert isinstance(event, CallEvent)
    assert (event.entry_id, event.timestamp, event.seq, event.disconnect_reason) == ("17", 1757936400, 2, 1110)
    assert event.from_ == Party(extension="101")


def test_what_is_empty_is_not_there() -> None:
    event = read(
        Kind.CALL,
        b'{"entry_id":"a","call_id":"b","timestamp":1,"seq":0,"call_state":"Appeared","from":[],'
        b'"to":{"number":"","extension":null},"disconnect_reason":"","new_field":{"of":["tomorrow"]}}',
    )
    assert isinstance(event, CallEvent)
    assert (event.from_, event.to, event.disconnect_reason, event.seq) == (Party(), Party(), None, 0)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.CALL, b""),
        (Kind.CALL, b"[]"),
        (Kind.CALL, b"null"),
        (Kind.CALL, b'{"entry_id":"a"}'),
        (Kind.CALL, b'{"entry_id":"\xff"}'),
        (Kind.SUMMARY, b'{"entry_id":"","create_time":1,"end_time":2}'),
        (Kind.SUMMARY, b'{"entry_id":"a\\u0000","create_time":1,"end_time":2}'),
        (Kind.SUMMARY, b'{"entry_id":"a","create_time":-1,"end_time":2}'),
        (Kind.SUMMARY, b'{"entry_id":"a","create_time":"soon","end_time":2}'),
        (Kind.SUMMARY, b'{"entry_id":"a","create_time":1,"end_time":99999999999999}'),
        (Kind.SUMMARY, b'{"entry_id":"a","create_time":1,"end_time":2,"disconnect_reason":9999999999}'),
        (Kind.SUMMARY, b'{"entry_id":"a","create_time":1,"end_time":2,"line_number":"' + b"1" * 300 + b'"}'),
        (Kind.RECORD_ADDED, b"[" * 5000),
    ],
)
def test_nonsense_is_said_to_be_so(kind: Kind, text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read(kind, text)


def test_the_kind_is_told_by_the_fields() -> None:
    sent = [(kind, json.dumps(message).encode()) for kind, message in inbound_call("79161234567", "74951234567", BEGAN)]
    assert {kind for kind, _ in sent} == {Kind.CALL, Kind.SUMMARY, Kind.RECORDING, Kind.RECORD_ADDED}
    for kind, text in sent:
        assert kind_of(text) is kind
    for other in (b"{}", b"[]", b"1", b"nothing", b"[" * 5000, b'{"message_id":"a","sms":"b"}', b"\xff"):
        assert kind_of(other) is Kind.OTHER
        assert read(Kind.OTHER, other) is None


# ---------------------------------------------------------------- the call


def told(sent: Sequence[tuple[Kind, dict[str, Any]]]) -> list[Message]:
    messages = [read(kind, msgspec.json.encode(message)) for kind, message in sent]
    return [one for one in messages if one is not None]


def call_of(messages: Sequence[Message]) -> tuple[Told, list[Leg]]:
    return folded(messages[0].entry_id, messages)


def test_a_call_with_several_legs_is_one_call() -> None:
    sent = list(inbound_call("79161234567", "74951234567", BEGAN, rings=3, talk_seconds=127))
    call, legs = call_of(told(sent))
    assert call.direction is Direction.INBOUND
    assert (call.from_.number, call.line.number) == ("+79161234567", "+74951234567")
    assert (call.to.number, call.to.raw, call.to.extension) == (None, "sip:user3@clinic.example", "103")
    assert (call.outcome, call.talk_seconds, call.reason) == (Outcome.ANSWERED, 127, "caller_hung_up")
    assert call.began_at == BEGAN
    assert [leg.location for leg in legs] == ["ivr", "abonent", "abonent", "abonent"]
    assert [leg.disconnect_reason for leg in legs] == [1100, 1111, 1111, 1110]
    assert [one.state for one in legs[3].states] == ["Appeared", "Connected", "Disconnected"]
    (record,) = call.exchange_recordings
    assert (record.ready, record.state, record.completion_code) == (True, "Completed", 1000)


def test_nobody_picked_up() -> None:
    call, legs = call_of(told(list(inbound_call("79161234567", "74951234567", BEGAN, talk_seconds=0))))
    assert (call.outcome, call.answered_at, call.talk_seconds) == (Outcome.UNANSWERED, None, 0)
    assert len(legs) == 3


def test_the_legs_say_the_same_as_the_summary_as_far_as_they_can() -> None:
    sent = list(inbound_call("79161234567", "74951234567", BEGAN, talk_seconds=30))
    whole, legs = call_of(told(sent))
    alone, same_legs = call_of(told([one for one in sent if one[0] is not Kind.SUMMARY]))
    assert same_legs == legs
    assert alone.direction is whole.direction
    for name in ("from_", "line", "to", "began_at", "answered_at", "ended_at", "talk_seconds", "outcome"):
        assert getattr(alone, name) == getattr(whole, name), name


def test_a_call_that_goes_on_is_in_progress() -> None:
    sent = list(inbound_call("79161234567", "74951234567", BEGAN, talk_seconds=30))
    call, _ = call_of(told(sent[:5]))
    assert (call.outcome, call.ended_at, call.talk_seconds, call.reason) == (Outcome.IN_PROGRESS, None, None, None)


def test_of_a_record_alone_nothing_is_invented() -> None:
    call, legs = call_of(told([(Kind.RECORD_ADDED, {"entry_id": "a", "recording_id": "r"})]))
    assert legs == []
    assert (call.direction, call.began_at, call.outcome) == (None, None, Outcome.IN_PROGRESS)
    assert [(one.recording_id, one.ready, one.state) for one in call.exchange_recordings] == [("r", True, None)]


def test_the_summary_alone_is_a_call() -> None:
    summary = {"entry_id": "a", "call_direction": "2", "create_time": "1757936400", "end_time": 1757936460}
    sides = {"from": {"extension": "101", "number": "84951112233"}, "to": {"number": "89161234567"}}
    ((call, legs),) = [call_of(told([(Kind.SUMMARY, summary | sides | {"talk_time": 1757936410})]))]
    assert legs == []
    assert (call.direction, call.outcome, call.talk_seconds) == (Direction.OUTBOUND, Outcome.ANSWERED, 50)
    assert (call.from_.number, call.to.number) == ("+74951112233", "+79161234567")


@pytest.mark.parametrize(("code", "word"), [(1100, "normal"), (1134, "unavailable"), (4711, None), (-1, None)])
def test_an_unknown_reason_is_kept_as_its_number(code: int, word: str | None) -> None:
    summary = {"entry_id": "a", "create_time": 1, "end_time": 2, "disconnect_reason": code, "entry_result": 0}
    call, _ = call_of(told([(Kind.SUMMARY, summary)]))
    assert (call.disconnect_reason, call.reason, call.direction) == (code, word, None)


def test_seq_has_the_word_within_a_leg() -> None:
    """Their clock has whole seconds, and may be set back."""
    leg = {"entry_id": "a", "call_id": "b"}
    events: list[tuple[Kind, dict[str, Any]]] = [
        (Kind.CALL, {**leg, "timestamp": 102, "seq": 2, "call_state": "Connected", "location": "abonent"}),
        (Kind.CALL, {**leg, "timestamp": 101, "seq": 3, "call_state": "Disconnected"}),
        (Kind.CALL, {**leg, "timestamp": 102, "seq": 1, "call_state": "Appeared", "to": {"extension": "7"}}),
    ]
    _, (one,) = call_of(told(events))
    assert [state.seq for state in one.states] == [1, 2, 3]
    assert (one.to.extension, one.location) == ("7", "abonent")


# Few values, so that they collide: equal seq, equal times, two summaries, parts that are missing.
_second, _word = st.integers(100, 104), st.sampled_from(["a", "b"])
_party = st.builds(Party, extension=st.none() | _word, number=st.sampled_from([None, "84951234567", "79161234567"]))
_message = st.one_of(
    st.builds(
        CallEvent,
        entry_id=st.just("e"),
        call_id=_word,
        timestamp=_second,
        seq=st.integers(0, 3),
        call_state=st.sampled_from(["Appeared", "Connected", "OnHold", "Disconnected", "Tomorrow's"]),
        location=st.sampled_from([None, "ivr", "queue", "abonent"]),
        from_=_party,
        to=_party,
        disconnect_reason=st.sampled_from([None, 1100, 4711]),
    ),
    st.builds(
        RecordingEvent,
        entry_id=st.just("e"),
        recording_id=_word,
        recording_state=st.sampled_from(["Started", "Completed"]),
        seq=st.integers(0, 2),
        completion_code=st.sampled_from([None, 1000]),
    ),
    st.builds(
        lambda **values: read(Kind.SUMMARY, msgspec.json.encode({"entry_id": "e", **values})),
        call_direction=st.sampled_from([0, 1, 2, 9]),
        create_time=_second,
        end_time=_second,
        talk_time=st.sampled_from([0, 101]),
        entry_result=st.sampled_from([None, 0, 1]),
        disconnect_reason=st.sampled_from([None, 1110]),
    ),
)


@given(st.lists(_message, max_size=8), st.data())
def test_the_order_and_the_repeats_make_no_difference(messages: list[Message], data: st.DataObject) -> None:
    doubled = messages + data.draw(st.lists(st.sampled_from(messages), max_size=4) if messages else st.just([]))
    shuffled = data.draw(st.permutations(doubled))
    assert folded("e", shuffled) == folded("e", messages)


# ---------------------------------------------------------------- what matching knows of it


def test_ours_is_the_side_with_several_names() -> None:
    call, legs = call_of(told(list(inbound_call("89161234567", "74951234567", BEGAN))))
    assert names_of(call, legs) == (["+79161234567"], ["+74951234567", "101", "102"])
    summary = {"entry_id": "a", "call_direction": 2, "create_time": 1, "end_time": 2, "line_number": "74951234567"}
    sides = {"from": {"extension": "101", "number": "74950000001"}, "to": {"number": "79161234567"}}
    out, legs = call_of(told([(Kind.SUMMARY, summary | sides)]))
    assert names_of(out, legs) == (["+74950000001", "+74951234567", "101"], ["+79161234567"])
    internal, legs = call_of(told([(Kind.SUMMARY, summary | sides | {"call_direction": 0})]))
    assert names_of(internal, legs) == (["+74950000001", "101"], ["+79161234567"])


def test_the_nearest_pairs_first_and_each_once() -> None:
    r1, r2, c1, c2 = (new_id() for _ in range(4))
    pairs = [
        Pair(recording_id=r1, call_id=c1, seconds=20),
        Pair(recording_id=r2, call_id=c1, seconds=5),
        Pair(recording_id=r1, call_id=c2, seconds=100),
        Pair(recording_id=r2, call_id=c2, seconds=50),
    ]
    for order in (pairs, pairs[::-1]):
        assert {(one.recording_id, one.call_id) for one in nearest(order)} == {(r2, c1), (r1, c2)}
    assert nearest([]) == []

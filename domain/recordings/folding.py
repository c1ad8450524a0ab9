"""A call out of what the exchange has told of it, in whatever order and however often: a function of the *set* of
messages, and nothing else.

The summary, which comes after the end, has the last word on direction, numbers, times and outcome. Until it is there
they are what the legs say. What contradicts itself (two summaries) is decided by a total order and not by what came
last, so that all who apply the same messages write the same call.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from domain.recordings.calls import (
    DIRECTIONS,
    REASONS,
    Direction,
    ExchangeRecording,
    Leg,
    LegState,
    Outcome,
    Phone,
    Told,
)
from domain.recordings.mango import CallEvent, Message, Party, RecordAdded, RecordingEvent, Summary
from domain.recordings.phones import normalised

APPEARED, CONNECTED, DISCONNECTED = "Appeared", "Connected", "Disconnected"
NOT_PEOPLE = ("ivr", "queue")  # where a connected leg is no talk yet

M = TypeVar("M", CallEvent, Summary, RecordingEvent, RecordAdded)


def folded(entry_id: str, messages: Iterable[Message]) -> tuple[Told, list[Leg]]:
    """The call ``entry_id`` and its legs, of messages that are all about it. Never raises."""
    known = list(dict.fromkeys(messages))  # a repeat that is not the same to the byte is still a repeat
    events = _ordered(known, CallEvent)
    legs = _legs(events)
    summary = next(iter(reversed(_ordered(known, Summary))), None)
    recordings = _recordings(_ordered(known, RecordingEvent), _ordered(known, RecordAdded))
    if summary is None:
        return _of_legs(entry_id, events, legs, recordings), legs
    return _of_summary(entry_id, summary, events, recordings), legs


def _ordered(messages: Iterable[Message], kind: type[M]) -> list[M]:
    return sorted((one for one in messages if isinstance(one, kind)), key=_rank)


def _rank(message: Message) -> tuple[int, int, bytes]:
    """By time, then by number, then by all that is said."""
    whole = msgspec.json.encode(message)
    match message:
        case CallEvent() | RecordingEvent():
            return message.timestamp, message.seq, whole
        case Summary():
            return message.end_time, message.create_time, whole
        case RecordAdded():
            return message.timestamp, 0, whole


# ---------------------------------------------------------------- legs


def _legs(events: list[CallEvent]) -> list[Leg]:
    """In the order in which they came up: by the time of their first message."""
    by_leg: dict[str, list[CallEvent]] = {}
    for event in events:
        by_leg.setdefault(event.call_id, []).append(event)
    return [_leg(call_id, sorted(told, key=lambda one: (one.seq, *_rank(one)))) for call_id, told in by_leg.items()]


def _leg(call_id: str, told: list[CallEvent]) -> Leg:
    """``told`` by seq, which says more of their order than whole seconds do."""
    from_, to = _last(one.from_ for one in told), _last(one.to for one in told)
    return Leg(
        call_id=call_id,
        from_=_phone(from_),
        to=_phone(to),
        location=next((one.location for one in reversed(told) if one.location), None),
        states=[
            LegState(seq=one.seq, state=one.call_state, at=_time(one.timestamp), location=one.location) for one in told
        ],
        disconnect_reason=next(
            (one.disconnect_reason for one in reversed(told) if one.disconnect_reason is not None), None
        ),
    )


def _last(parties: Iterable[Party]) -> Party:
    """Each part as it was last said: later messages leave out what has not changed."""
    said: dict[str, str] = {}
    for party in parties:
        said |= {name: value for name, value in msgspec.structs.asdict(party).items() if value is not None}
    return Party(**said)


# ---------------------------------------------------------------- the call


def _of_summary(entry_id: str, summary: Summary, events: list[CallEvent], recordings: list[ExchangeRecording]) -> Told:
    answered = bool(summary.talk_time) if summary.entry_result is None else summary.entry_result == 1
    talked = summary.talk_time if answered else 0
    line = summary.line_number or summary.to.line_number or _line(events)
    return Told(
        entry_id=entry_id,
        direction=DIRECTIONS.get(-1 if summary.call_direction is None else summary.call_direction),
        from_=_phone(summary.from_),
        to=_phone(summary.to),
        line=_phone(Party(number=line)),
        began_at=_time(summary.create_time),
        answered_at=_time(talked) if talked else None,
        ended_at=_time(summary.end_time),
        talk_seconds=max(0, summary.end_time - talked) if talked else 0,
        outcome=Outcome.ANSWERED if answered else Outcome.UNANSWERED,
        disconnect_reason=summary.disconnect_reason,
        reason=_reason(summary.disconnect_reason),
        exchange_recordings=recordings,
    )


def _of_legs(entry_id: str, events: list[CallEvent], legs: list[Leg], recordings: list[ExchangeRecording]) -> Told:
    first = legs[0] if legs else None
    open_legs = [leg for leg in legs if not any(one.state == DISCONNECTED for one in leg.states)]
    ended = bool(legs) and not open_legs
    talks = [one.timestamp for one in events if one.call_state == CONNECTED and one.location not in NOT_PEOPLE]
    # the callee is whoever was reached, else who was rung last
    reached = next((leg for leg in reversed(legs) if _talked(leg)), legs[-1] if legs else None)
    last = events[-1].timestamp if events else 0
    talk = min(talks, default=0)
    reason = next((one.disconnect_reason for one in reversed(events) if one.disconnect_reason is not None), None)
    outcome = Outcome.ANSWERED if talks else Outcome.UNANSWERED
    nobody = Phone(number=None, raw=None)
    return Told(
        entry_id=entry_id,
        direction=_direction(first, _line(events)),
        from_=first.from_ if first else nobody,
        to=reached.to if reached else nobody,
        line=_phone(Party(number=_line(events))),
        began_at=_time(events[0].timestamp) if events else None,
        answered_at=_time(talk) if talks else None,
        ended_at=_time(last) if ended else None,
        talk_seconds=(last - talk if talks else 0) if ended else None,
        outcome=outcome if ended else Outcome.IN_PROGRESS,
        disconnect_reason=reason if ended else None,
        reason=_reason(reason) if ended else None,
        exchange_recordings=recordings,
    )


def _talked(leg: Leg) -> bool:
    return any(one.state == CONNECTED and one.location not in NOT_PEOPLE for one in leg.states)


def _direction(first: Leg | None, line: str | None) -> Direction | None:
    """As the first leg looks: only somebody of the house has an extension."""
    if first is None:
        return None
    if first.from_.extension:
        return Direction.INTERNAL if first.to.extension else Direction.OUTBOUND
    return Direction.INBOUND if line else None


def _line(events: list[CallEvent]) -> str | None:
    return next((one.to.line_number for one in events if one.to.line_number), None)


def _reason(code: int | None) -> str | None:
    return None if code is None else REASONS.get(code)


def _phone(party: Party) -> Phone:
    return Phone(number=normalised(party.number), raw=party.number, extension=party.extension)


def _time(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


# ---------------------------------------------------------------- recordings at the exchange


def _recordings(told: list[RecordingEvent], added: list[RecordAdded]) -> list[ExchangeRecording]:
    """By id; the state is that of the greatest ``seq``."""
    ready = {one.recording_id for one in added}
    by_id: dict[str, list[RecordingEvent]] = {one: [] for one in ready}
    for event in told:
        by_id.setdefault(event.recording_id, []).append(event)
    found = []
    for recording_id, events in sorted(by_id.items()):
        events.sort(key=lambda one: (one.seq, *_rank(one)))
        found.append(
            ExchangeRecording(
                recording_id=recording_id,
                call_id=next((one.call_id for one in reversed(events) if one.call_id), None),
                state=events[-1].recording_state if events else None,
                completion_code=next(
                    (one.completion_code for one in reversed(events) if one.completion_code is not None), None
                ),
                ready=recording_id in ready,
            )
        )
    return found

"""What a call is: the legs and times that notifications of the exchange add up to, and the call as a client sees it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.jobs import Time


class Direction(StrEnum):
    """From outside, to outside, or neither."""

    INTERNAL = "internal"
    INBOUND = "inbound"
    OUTBOUND = "outbound"


DIRECTIONS = {0: Direction.INTERNAL, 1: Direction.INBOUND, 2: Direction.OUTBOUND}  # events/summary, call_direction


class Outcome(StrEnum):
    """How a call ended."""

    IN_PROGRESS = "in_progress"
    """A leg of it is open, or nothing is known but that it is recorded."""
    ANSWERED = "answered"
    """Two people talked."""
    UNANSWERED = "unanswered"
    """It ended without that; the reason says how."""


REASONS = {
    1100: "normal",
    1110: "caller_hung_up",
    1111: "no_answer",
    1120: "callee_hung_up",
    1121: "busy",
    1122: "rejected",
    1123: "do_not_disturb",
    **dict.fromkeys(range(1130, 1140), "unavailable"),
}


class Phone(msgspec.Struct, frozen=True, kw_only=True):
    """A side of a call or a leg: its telephone number, and what the exchange said."""

    number: Annotated[str | None, Meta(description="E.164; null for what is no such number", examples=["+79161234567"])]
    raw: Annotated[str | None, Meta(description="As the exchange sent it", examples=["79161234567"])]
    extension: Annotated[str | None, Meta(description="Internal number", examples=[None])] = None


class LegState(msgspec.Struct, frozen=True, kw_only=True):
    """A leg came into a state."""

    seq: Annotated[int, Meta(description="In the order of the exchange", examples=[1])]
    state: Annotated[str, Meta(description="`Appeared`, `Connected`, `OnHold`, `Disconnected`", examples=["Connected"])]
    at: Annotated[Time, Meta(examples=["2025-09-15T11:40:03Z"])]
    location: Annotated[str | None, Meta(description="`ivr`, `queue` or `abonent`", examples=["abonent"])]


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of a call, with its states by ``seq``; every telephone that is rung is a leg."""

    call_id: Annotated[str, Meta(description="The exchange's id of it", examples=["MToxMDA2ODIwNDpsZWc6MQ=="])]
    from_: Phone = msgspec.field(name="from")
    to: Phone
    location: Annotated[str | None, Meta(description="Where it was last", examples=["abonent"])]
    states: list[LegState]
    disconnect_reason: Annotated[int | None, Meta(description="The exchange's code", examples=[1110])]


class ExchangeRecording(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that the exchange made. ``ready``: its file can be had there."""

    recording_id: Annotated[str, Meta(examples=["MToxMDA2ODIwNDpyZWM6MQ=="])]
    call_id: Annotated[str | None, Meta(description="Of the leg", examples=["MToxMDA2ODIwNDpsZWc6MQ=="])]
    state: Annotated[
        str | None, Meta(description="`Started`, `Continued` or `Completed`, if it was told", examples=["Completed"])
    ]
    completion_code: Annotated[int | None, Meta(description="1000 is fine", examples=[1000])]
    ready: Annotated[bool, Meta(examples=[True])]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A call as the exchange tells it: what every order of the same notifications adds up to."""

    entry_id: Annotated[str, Meta(description="The exchange's id of it", examples=["MToxMDA2ODIwNDplbnRyeTox"])]
    direction: Annotated[Direction | None, Meta(description="Null while it cannot be known", examples=["inbound"])]
    from_: Phone = msgspec.field(name="from")
    to: Annotated[
        Phone,
        Meta(
            description="Who was reached, or rung last",
            examples=[{"number": None, "raw": "sip:anna@clinic.example", "extension": "101"}],
        ),
    ]
    line: Annotated[
        Phone,
        Meta(
            description="The number of yours that the call came in by, or went out by",
            examples=[{"number": "+74951234567", "raw": "74951234567", "extension": None}],
        ),
    ]
    began_at: Annotated[Time | None, Meta(examples=["2025-09-15T11:40:00Z"])]
    answered_at: Annotated[
        Time | None, Meta(description="When the talk began; null while it has not", examples=["2025-09-15T11:40:03Z"])
    ]
    ended_at: Annotated[Time | None, Meta(examples=["2025-09-15T11:42:10Z"])]
    talk_seconds: Annotated[int | None, Meta(description="Null until the end", examples=[127])]
    outcome: Annotated[Outcome, Meta(examples=["answered"])]
    disconnect_reason: Annotated[int | None, Meta(description="The exchange's code", examples=[1110])]
    reason: Annotated[
        str | None,
        Meta(
            description="The code in a word: " + ", ".join(f"`{word}`" for word in dict.fromkeys(REASONS.values())),
            examples=["caller_hung_up"],
        ),
    ]
    exchange_recordings: list[ExchangeRecording]


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that belongs to a call."""

    id: Annotated[UUID, Meta(examples=["01994d30-1c20-7a55-8e02-7b1f4c9d0a63"])]
    matched_by: Annotated[str, Meta(description="`rule` or `hand`", examples=["rule"])]
    matched_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:45:31.204518Z"])]


class Call(Told, frozen=True, kw_only=True):
    """One call, however many telephones rang for it."""

    id: Annotated[UUID, Meta(examples=["01994d2e-5b10-7c3e-9f41-0d6a2b8c7e14"])]
    recordings: list[Recorded]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:40:00.318224Z"])]
    updated_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:42:10.704119Z"])]


class CallWithLegs(Call, frozen=True, kw_only=True):
    """One call with its legs, in the order they came up."""

    legs: list[Leg]


class CallPage(msgspec.Struct, frozen=True, kw_only=True):
    """Calls, the latest to become known first; pass ``next`` as ``after`` for the following page, null after the
    last."""

    items: list[Call]
    next: Annotated[UUID | None, Meta(examples=[None])]

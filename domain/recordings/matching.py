"""Which call a recording is of: the rule, as far as it needs no database.

A recording's name says a time and two numbers, who called and who was called. Of these one is the other party's, the
other is ours, and ours has several names: the line's number, that of whoever was reached, or of any telephone that
rang. The direction says which of the two is ours.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.recordings.calls import Direction, Leg, Phone, Told


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The call a recording is of; null: it is of none, and the rule is to leave it alone."""

    call_id: Annotated[
        UUID | None, Meta(description="Null takes it off", examples=["01994d2e-5b10-7c3e-9f41-0d6a2b8c7e14"])
    ]


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """A recording and its call, as a person has put them together."""

    recording_id: Annotated[UUID, Meta(examples=["01994d30-1c20-7a55-8e02-7b1f4c9d0a63"])]
    call_id: Annotated[UUID | None, Meta(examples=["01994d2e-5b10-7c3e-9f41-0d6a2b8c7e14"])]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A recording and a call that it may be of; ``seconds`` lie between them."""

    recording_id: UUID
    call_id: UUID
    seconds: float


def names_of(call: Told, legs: Sequence[Leg]) -> tuple[list[str], list[str]]:
    """What a recording's name may have for who called, and for who was called; E.164 and internal numbers, sorted."""
    callers, callees = [call.from_], [call.to]
    if call.direction is Direction.OUTBOUND:
        callers += [call.line, *(leg.from_ for leg in legs)]
    elif call.direction is Direction.INBOUND:
        callees += [call.line, *(leg.to for leg in legs)]
    elif call.direction is None:  # it came to an end before it showed
        callees += [call.line]
    return _names(callers), _names(callees)


def _names(phones: Iterable[Phone]) -> list[str]:
    return sorted({name for phone in phones for name in (phone.number, phone.extension) if name})


def nearest(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs to be made: the nearest first, and each recording and each call once."""
    recordings: set[UUID] = set()
    calls: set[UUID] = set()
    made = []
    for pair in sorted(pairs, key=lambda one: (one.seconds, one.recording_id, one.call_id)):
        if pair.recording_id not in recordings and pair.call_id not in calls:
            recordings.add(pair.recording_id)
            calls.add(pair.call_id)
            made.append(pair)
    return made

"""Calls: written from what was delivered of them, and read by those who may."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, insert, text

from domain.identity import new_id
from domain.recordings import mango as messages
from domain.recordings.calls import REASONS, Call, CallWithLegs, Direction, Leg, Phone, Told
from domain.recordings.folding import folded
from domain.recordings.matching import names_of
from storage.recordings import mango
from storage.recordings.call_tables import call_legs

# No column of the key is set: the lock is one that a recording's reference to the call does not wait for.
_hold = text("""
    INSERT INTO calls (id, entry_id) VALUES (:id, :entry_id)
    ON CONFLICT (entry_id) DO UPDATE SET updated_at = clock_timestamp() RETURNING id""")
_SIDES = ("from", "to", "line")
_write = text(f"""
    UPDATE calls SET direction = :direction, outcome = :outcome, began_at = :began_at, answered_at = :answered_at,
        {", ".join(f"{side}_number = :{side}_number, {side}_raw = :{side}_raw" for side in _SIDES)},
        from_extension = :from_extension, to_extension = :to_extension, from_names = :from_names, to_names = :to_names,
        ended_at = :ended_at, talk_seconds = :talk_seconds, disconnect_reason = :disconnect_reason,
        exchange_recordings = CAST(:exchange_recordings AS jsonb), updated_at = clock_timestamp()
    WHERE id = :id""")
_forget_legs = text("DELETE FROM call_legs WHERE call_id = :id")
_legs = text("SELECT leg FROM call_legs WHERE call_id = :id ORDER BY place")

_MINE = "(CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)"
_COLUMNS = f"""calls.id, entry_id, direction, from_number, from_raw, from_extension, to_number, to_raw, to_extension,
    line_number, line_raw, began_at, answered_at, ended_at, talk_seconds, outcome, disconnect_reason,
    exchange_recordings, calls.created_at, calls.updated_at, COALESCE((
        SELECT jsonb_agg(jsonb_build_object('id', id, 'matched_by', matched_by, 'matched_at', matched_at) ORDER BY id)
        FROM recordings WHERE call_id = calls.id AND {_MINE}), '[]') AS recordings"""
# Somebody who is no admin sees the calls of which a recording is theirs, and of those no other's recordings.
_SEEN = "calls.id IN (SELECT call_id FROM recordings WHERE owner_id = :owner_id AND call_id IS NOT NULL)"
_one = text(f"SELECT {_COLUMNS} FROM calls WHERE calls.id = :id AND (CAST(:owner_id AS uuid) IS NULL OR {_SEEN})")
# Of these only what is asked for stands in the query: with all of it the planner would have one plan for everything,
# and the list of somebody with three calls would be looked for among everybody's.
_NARROW = {
    "owner_id": _SEEN,
    "after": "calls.id < :after",
    "number": "(from_names @> ARRAY[:number] OR to_names @> ARRAY[:number])",
    "direction": "direction = :direction",
    "since": "began_at >= :since",
    "until": "began_at < :until",
    "answered": "(outcome = 'answered') = :answered",
    "matched": "EXISTS (SELECT FROM recordings WHERE call_id = calls.id)",
    "unmatched": "NOT EXISTS (SELECT FROM recordings WHERE call_id = calls.id)",
}

# ---------------------------------------------------------------- writing


def apply(connection: Connection, entry_id: str, delivery_ids: Sequence[int]) -> UUID:
    """Make the call anew of all that was delivered of it, these included; its id. In a transaction.

    Whoever applies another delivery of the same call waits for the end of it and then sees what this one has seen, so
    the last to write has read everything.
    """
    call_id: UUID = connection.execute(_hold, {"id": new_id(), "entry_id": entry_id}).scalar_one()
    mango.applied(connection, delivery_ids, entry_id)
    told = [messages.read(one.kind, one.raw) for one in mango.of_entry(connection, entry_id)]
    call, legs = folded(entry_id, [one for one in told if one is not None])
    connection.execute(_write, {"id": call_id, **_values(call, legs)})
    connection.execute(_forget_legs, {"id": call_id})
    if legs:
        rows = [
            {"call_id": call_id, "place": place, "leg_id": leg.call_id, "leg": msgspec.to_builtins(leg)}
            for place, leg in enumerate(legs)
        ]
        connection.execute(insert(call_legs), rows)
    return call_id


def _values(call: Told, legs: Sequence[Leg]) -> dict[str, Any]:
    from_names, to_names = names_of(call, legs)
    sides = {
        f"{side}_{part}": getattr(phone, part)
        for side, phone in zip(_SIDES, (call.from_, call.to, call.line), strict=True)
        for part in ("number", "raw", "extension")
    }
    return {
        **msgspec.structs.asdict(call),
        **sides,
        "from_names": from_names,
        "to_names": to_names,
        "exchange_recordings": msgspec.json.encode(call.exchange_recordings).decode(),
    }


# ---------------------------------------------------------------- reading


def one(connection: Connection, call_id: UUID, owner_id: UUID | None) -> CallWithLegs | None:
    """The call if somebody may see it; ``owner_id`` None is an admin."""
    row = connection.execute(_one, {"id": call_id, "owner_id": owner_id}).one_or_none()
    if row is None:
        return None
    legs = msgspec.convert(list(connection.execute(_legs, {"id": call_id}).scalars()), list[Leg])
    return CallWithLegs(**msgspec.structs.asdict(_call(row)), legs=legs)


def page(
    connection: Connection,
    owner_id: UUID | None,
    *,
    after: UUID | None,
    limit: int,
    number: str | None,
    direction: Direction | None,
    since: datetime | None,
    until: datetime | None,
    answered: bool | None,
    matched: bool | None,
) -> list[Call]:
    """The latest first, those before ``after``; ``number`` in E.164, or an internal one."""
    values = {
        "owner_id": owner_id,
        "after": after,
        "limit": limit,
        "number": number,
        "direction": direction,
        "since": since,
        "until": until,
        "answered": answered,
        "matched": matched or None,
        "unmatched": True if matched is False else None,
    }
    asked = [condition for name, condition in _NARROW.items() if values[name] is not None]
    where = " AND ".join(asked or ["TRUE"])
    page = text(f"SELECT {_COLUMNS} FROM calls WHERE {where} ORDER BY calls.id DESC LIMIT :limit")
    return [_call(row) for row in connection.execute(page, values)]


def _call(row: Row[Any]) -> Call:
    told = {**row._mapping, "reason": REASONS.get(row.disconnect_reason)}
    told["from"] = Phone(number=row.from_number, raw=row.from_raw, extension=row.from_extension)
    told["to"] = Phone(number=row.to_number, raw=row.to_raw, extension=row.to_extension)
    told["line"] = Phone(number=row.line_number, raw=row.line_raw)
    return msgspec.convert(told, Call)

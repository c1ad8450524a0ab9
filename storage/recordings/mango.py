"""What the exchange has delivered: kept as it came before anything is made of it."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from domain.recordings.mango import Kind

BATCH = 500

_keep = text("""
    INSERT INTO mango_deliveries (kind, hash, raw, source) VALUES (:kind, :hash, :raw, :source)
    ON CONFLICT (kind, hash) DO NOTHING RETURNING id""")
_WAITS = "applied_at IS NULL AND error IS NULL"
_one = text(f"SELECT id, kind, raw FROM mango_deliveries WHERE id = :id AND {_WAITS}")
_waiting = text(f"""
    SELECT id, kind, raw FROM mango_deliveries
    WHERE {_WAITS} AND id > :after AND received_at < clock_timestamp() - make_interval(secs => :age)
    ORDER BY id LIMIT {BATCH}""")
_done = text(f"""
    UPDATE mango_deliveries SET applied_at = clock_timestamp(), entry_id = :entry_id
    WHERE id = ANY(:ids) AND {_WAITS}""")
_failed = text(f"UPDATE mango_deliveries SET error = :error WHERE id = ANY(:ids) AND {_WAITS}")
_of_entry = text("""
    SELECT id, kind, raw FROM mango_deliveries WHERE entry_id = :entry_id AND applied_at IS NOT NULL ORDER BY id""")


class Delivery(NamedTuple):
    id: int
    kind: Kind
    raw: bytes


def keep(connection: Connection, kind: Kind, raw: bytes, source: str) -> int | None:
    """Its number; None for one that was delivered before."""
    values = {"kind": kind, "hash": hashlib.sha256(raw).digest(), "raw": raw, "source": source}
    made: int | None = connection.execute(_keep, values).scalar_one_or_none()
    return made


def one(connection: Connection, delivery_id: int) -> Delivery | None:
    """One that is still to be applied."""
    row = connection.execute(_one, {"id": delivery_id}).one_or_none()
    return None if row is None else Delivery(row.id, Kind(row.kind), row.raw)


def waiting(connection: Connection, *, after: int, age: float) -> list[Delivery]:
    """The oldest that were not applied ``age`` seconds after they had come, from the number ``after`` on."""
    rows = connection.execute(_waiting, {"after": after, "age": age})
    return [Delivery(row.id, Kind(row.kind), row.raw) for row in rows]


def applied(connection: Connection, ids: Sequence[int], entry_id: str | None) -> None:
    connection.execute(_done, {"ids": list(ids), "entry_id": entry_id})


def failed(connection: Connection, ids: Sequence[int], error: str) -> None:
    """They cannot be applied, and are left alone from now on."""
    connection.execute(_failed, {"ids": list(ids), "error": error[:1000].replace("\0", "")})


def of_entry(connection: Connection, entry_id: str) -> list[Delivery]:
    """All that has been applied to a call."""
    rows = connection.execute(_of_entry, {"entry_id": entry_id})
    return [Delivery(row.id, Kind(row.kind), row.raw) for row in rows]

"""Slots of the schedule: which of them have been taken, by the database's clock alone.

One row for each tick, moved forward by compare-and-set, and not a row for each slot: nothing grows, nothing needs
cleaning, and the row says when the tick ran last. What is lost with the single row is the history of slots, which
nobody asks for.
"""

from sqlalchemy import Column, Connection, DateTime, Table, Text, text

from storage.database import metadata

ticks = Table(
    "ticks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("slot", DateTime(timezone=True), nullable=False),  # the beginning of the last one that was taken
)

# A slot is kept as the time it begins at and not as its number, so that another period counts on from there.
# A last slot that begins more than a period from now says that the database's clock was ahead and has been set back:
# waiting for that time would stop the schedule for as long.
_take = text("""
    INSERT INTO ticks AS known (name, slot)
    VALUES (:name, date_bin(make_interval(secs => :seconds), now(), TIMESTAMPTZ 'epoch'))
    ON CONFLICT (name) DO UPDATE SET slot = excluded.slot
    WHERE known.slot < excluded.slot OR known.slot > clock_timestamp() + make_interval(secs => :seconds)
    RETURNING TRUE""")


def take(connection: Connection, name: str, seconds: float) -> bool:
    """Take the present slot of a tick that has one every ``seconds``; False when it is taken. One statement."""
    return connection.execute(_take, {"name": name, "seconds": seconds}).first() is not None

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
# Nobody waits for a row that somebody holds: whoever waited would do nothing else for as long as a forgotten lock.
_take = text("""
    WITH present AS (SELECT date_bin(make_interval(secs => :seconds), now(), TIMESTAMPTZ 'epoch') AS slot),
    free AS (SELECT name FROM ticks WHERE name = :name FOR NO KEY UPDATE SKIP LOCKED),
    moved AS (
        UPDATE ticks AS known SET slot = present.slot FROM present
        WHERE known.name IN (SELECT name FROM free)
          AND (known.slot < present.slot OR known.slot > clock_timestamp() + make_interval(secs => :seconds))
        RETURNING TRUE),
    made AS (
        INSERT INTO ticks (name, slot) SELECT :name, slot FROM present
        WHERE NOT EXISTS (SELECT FROM ticks WHERE name = :name)
        ON CONFLICT (name) DO NOTHING RETURNING TRUE)
    SELECT FROM moved UNION ALL SELECT FROM made""")


def take(connection: Connection, name: str, seconds: float) -> bool:
    """Take the present slot of a tick that has one every ``seconds``; False when it is taken, or being taken.

    One statement, which waits for nobody.
    """
    return connection.execute(_take, {"name": name, "seconds": seconds}).first() is not None

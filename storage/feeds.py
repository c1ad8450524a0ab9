"""All events of an owner, each once, in an order in which those of one job keep theirs.

Events of different jobs are committed in any order, so no number that is given out before the commit could tell a
reader what it has seen. A position in the feed is a snapshot instead (``pg_snapshot``, PostgreSQL manual, 9.27.7): what
is visible in it was read. What is visible now and was not then is new, whatever its number; nothing is waited for, and
nothing is missed or read twice.

A position is text: ``xmin:xmax:xip``, or in the middle of a batch ``{before}~{now}~{rank}.{job}.{seq}``.
"""

import re
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, exc, text

from domain.errors.requests import Invalid
from domain.jobs import Event, EventType

BATCH = 500  # events read at once
BEGINNING = "1:1:"  # before everything

# Within a batch an event is placed by the latest transaction among those of its job up to it: chronological as far as
# transactions are, and right for each job even where a longer transaction has the lower id.
_news = text("""
    WITH span AS (
        SELECT CAST(:seen AS pg_snapshot) AS seen,
               COALESCE(CAST(:until AS pg_snapshot), pg_current_snapshot()) AS until),
    fresh AS (
        SELECT job_id, seq, type, at, data,
               max(CAST(CAST(txid AS text) AS bigint)) OVER (PARTITION BY job_id ORDER BY seq) AS rank
        FROM job_events, span
        WHERE owner_id = :owner_id AND txid >= pg_snapshot_xmin(seen)
          AND NOT pg_visible_in_snapshot(txid, seen) AND pg_visible_in_snapshot(txid, until)),
    batch AS (
        SELECT * FROM fresh WHERE (rank, job_id, seq) > (:rank, :job_id, :seq) ORDER BY rank, job_id, seq LIMIT :limit)
    SELECT CAST(span.until AS text) AS until, batch.* FROM span LEFT JOIN batch ON TRUE ORDER BY rank, job_id, seq""")
_now = text("SELECT CAST(pg_current_snapshot() AS text)")
_owners_with_news = text("""
    WITH span AS (SELECT CAST(:seen AS pg_snapshot) AS seen, pg_current_snapshot() AS until),
    fresh AS (
        SELECT DISTINCT owner_id FROM job_events, span
        WHERE owner_id = ANY(:owner_ids) AND txid >= pg_snapshot_xmin(seen) AND NOT pg_visible_in_snapshot(txid, seen))
    SELECT CAST(until AS text) AS until, owner_id FROM span LEFT JOIN fresh ON TRUE""")
_position = re.compile(r"(\d+:\d+:[\d,]*)(?:~(\d+:\d+:[\d,]*)~(\d+)\.([0-9a-f-]{36})\.(\d+))?")
_NOBODY = UUID(int=0)


class Batch(NamedTuple):
    """What is new: (position after it, event) in order; the position after all of them; whether there is more."""

    events: list[tuple[str, Event]]
    position: str
    more: bool


def now(connection: Connection) -> str:
    """The position after everything that is committed."""
    return str(connection.execute(_now).scalar_one())


def news(connection: Connection, owner_id: UUID, position: str, limit: int = BATCH) -> Batch:
    """The owner's events after ``position``, at most ``limit`` of them.

    Raises:
        Invalid: it is no position.
    """
    found = _position.fullmatch(position)
    if found is None:
        raise Invalid(field="Last-Event-ID", reason="must be the id of an event of this stream")
    seen, until, rank, job_id, seq = found.groups()
    values = {"owner_id": owner_id, "seen": seen, "until": until, "limit": limit + 1}
    try:
        values |= {"rank": int(rank or 0), "job_id": UUID(job_id) if job_id else _NOBODY, "seq": int(seq or 0)}
        rows = connection.execute(_news, values).all()
    except (exc.DataError, ValueError) as error:
        raise Invalid(field="Last-Event-ID", reason="must be the id of an event of this stream") from error
    until = str(rows[0].until)
    fresh = [row for row in rows if row.job_id is not None]
    more = len(fresh) > limit
    told = []
    for row in fresh[:limit]:
        event = Event(job_id=row.job_id, seq=row.seq, type=EventType(row.type), at=row.at, data=row.data)
        told.append((f"{seen}~{until}~{row.rank}.{row.job_id}.{row.seq}", event))
    if more:
        return Batch(told, told[-1][0], more=True)
    if told:
        told[-1] = (until, told[-1][1])
    return Batch(told, until, more=False)


def owners_with_news(connection: Connection, owner_ids: list[UUID], seen: str) -> tuple[set[UUID], str]:
    """Which of these owners have events that ``seen`` does not show; and the position at which that was looked at."""
    rows = connection.execute(_owners_with_news, {"owner_ids": owner_ids, "seen": seen}).all()
    return {row.owner_id for row in rows if row.owner_id is not None}, str(rows[0].until)

"""The record of a job and its live announcement.

``job_events`` is the record; what goes out on Redis pub/sub after the commit is a copy of it, whole, so that a job's
listener needs no query. Those who listen to an owner are only told that there is something to read (``storage.feeds``).
Losing a message loses nothing: streams read the table again.
"""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from uuid import UUID

import msgspec
import redis
import structlog
from sqlalchemy import Connection, text

from domain.jobs import Event, EventType
from storage.configuration import settings

JOB_CHANNEL, OWNER_CHANNEL = "millrace:job:", "millrace:owner:"
NEWS = b""  # what an owner's channel says of a stored event: go and read

_log = structlog.get_logger()
_replay = text("""
    SELECT job_id, seq, type, at, data FROM job_events
    WHERE job_id = :job_id AND seq > :after ORDER BY seq LIMIT :limit""")
_standings = text("SELECT id, event_seq FROM jobs WHERE id = ANY(:ids)")


def channel(job_id: UUID) -> str:
    return f"{JOB_CHANNEL}{job_id}"


def owner_channel(owner_id: UUID) -> str:
    return f"{OWNER_CHANNEL}{owner_id}"


def replay(connection: Connection, job_id: UUID, after: int, limit: int = 1000) -> list[Event]:
    """The stored events of a job that follow ``after``, oldest first, at most ``limit``."""
    rows = connection.execute(_replay, {"job_id": job_id, "after": after, "limit": limit})
    return [Event(job_id=row.job_id, seq=row.seq, type=EventType(row.type), at=row.at, data=row.data) for row in rows]


def standings(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The number of the last event of each of these jobs; those that are not there are missing."""
    return {row.id: row.event_seq for row in connection.execute(_standings, {"ids": job_ids})}


def announce(told: Iterable[tuple[UUID, Event]]) -> None:
    """Publish (owner, event) pairs that are already committed. Never raises: the table has them."""
    messages = []
    for owner_id, event in told:
        whole = msgspec.json.encode(event)
        messages.append((channel(event.job_id), whole))
        messages.append((owner_channel(owner_id), whole if event.seq is None else NEWS))
    _publish(messages)


def announce_last(owner_id: UUID, event: Event) -> None:
    """Publish the last event of a job that is deleted: nobody can read it in the table, so this is all that streams of
    the job and of its owner will hear. Never raises."""
    whole = msgspec.json.encode(event)
    _publish([(channel(event.job_id), whole), (owner_channel(owner_id), whole)])


def _publish(messages: Iterable[tuple[str, bytes]]) -> None:
    try:
        pipe = publisher().pipeline(transaction=False)
        for where, message in messages:
            pipe.publish(where, message)
        pipe.execute()
    except redis.RedisError as error:
        _log.warning("events_not_announced", error=str(error))


@cache
def publisher() -> redis.Redis:
    """The Redis connection of this process for publishing; short time limits, because nothing depends on it."""
    return redis.Redis.from_url(
        settings().redis_url,
        socket_timeout=2,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=30,
    )


os.register_at_fork(after_in_child=publisher.cache_clear)

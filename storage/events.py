"""The record of a job and its live announcement.

``job_events`` is the record; what goes out on Redis pub/sub after the commit is a copy of it, whole, so that a listener
needs no query. Losing a message loses nothing: streams read the table again.
"""

import os
from collections.abc import Iterable
from functools import cache
from uuid import UUID

import msgspec
import redis
import structlog
from sqlalchemy import Connection, text

from domain.jobs import Event, EventType
from storage.configuration import settings

CHANNEL = "millrace:job:"

_log = structlog.get_logger()
_replay = text("""
    SELECT job_id, seq, type, at, data FROM job_events
    WHERE job_id = :job_id AND seq > :after ORDER BY seq LIMIT :limit""")


def channel(job_id: UUID) -> str:
    return f"{CHANNEL}{job_id}"


def replay(connection: Connection, job_id: UUID, after: int, limit: int = 1000) -> list[Event]:
    """The stored events of a job that follow ``after``, oldest first, at most ``limit``."""
    rows = connection.execute(_replay, {"job_id": job_id, "after": after, "limit": limit})
    return [Event(job_id=row.job_id, seq=row.seq, type=EventType(row.type), at=row.at, data=row.data) for row in rows]


def announce(events: Iterable[Event]) -> None:
    """Publish events that are already committed. Never raises: the table has them, streams catch up from there."""
    try:
        pipe = publisher().pipeline(transaction=False)
        for event in events:
            pipe.publish(channel(event.job_id), msgspec.json.encode(event))
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

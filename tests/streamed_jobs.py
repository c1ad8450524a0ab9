"""Jobs that are moved on event by event, and a hub that tells of them, in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import redis

from api.jobs import frames
from api.jobs.hub import Hub, Message, Subscription
from domain.accounts import Principal
from domain.pipelines import ResultFile
from storage import accounts, events
from storage.configuration import settings
from storage.database import autocommit
from storage.jobs import transitions
from tests import job_rows

SOON = 13.0  # below the 15 s after which a stream looks for itself, and long enough for a busy machine


@asynccontextmanager
async def hub_running() -> AsyncIterator[Hub]:
    hub = Hub(settings().redis_url)
    hub.start()
    try:
        await until(lambda: hub._pubsub is not None)
        yield hub
    finally:
        await hub.stop()


async def until(condition: Callable[[], Any], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to be"
        await asyncio.sleep(0.02)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(40):
            await test

    asyncio.run(limited())


def reader_of(job_id: UUID) -> Principal:
    """Its owner."""
    (owner,) = accounts.principals([job_rows.row(job_id)["owner_id"]])
    return owner


class Job:
    """A job that is moved on as a worker would, event by event."""

    def __init__(self) -> None:
        self.id = job_rows.queued()
        self.channel = events.channel(self.id)
        self.reader = reader_of(self.id)

    def attempt(self, *, announced: bool = True) -> None:
        """Two events."""
        with autocommit() as connection:
            found = transitions.claim(connection, self.id, "inspect", "w", 60)
            assert found
            moved = transitions.interrupt(connection, found[0])
        assert moved
        if announced:
            events.announce([(moved.owner_id, found[1]), (moved.owner_id, moved.event)])

    def succeed(self, *, announced: bool = True) -> None:
        """Two events, the last one terminal."""
        with autocommit() as connection:
            found = transitions.claim(connection, self.id, "inspect", "w", 60)
            assert found
            result = ResultFile(key="k", name="n", size=1)
            moved = transitions.succeed(connection, found[0], message=None, result=result)
        assert moved
        if announced:
            events.announce([(moved.owner_id, found[1]), (moved.owner_id, moved.event)])


async def numbers(hub: Hub, job_id: UUID, seen: int = 0) -> list[int]:
    """The ids a stream has sent by its end."""
    return [number async for number in ids(hub, job_id, seen)]


async def ids(hub: Hub, job_id: UUID, seen: int = 0) -> AsyncIterator[int]:
    async with aclosing(frames.of_job(hub, reader_of(job_id), job_id, seen)) as source:
        async for frame in source:
            if frame.place and frame.type:
                yield int(frame.place)


async def soon(subscription: Subscription, seconds: float) -> Message | None:
    """Its next message, None when none comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await subscription.next()
    return None


def subscribers(job: Job) -> int:
    with redis.Redis.from_url(settings().redis_url) as connection:
        ((_, count),) = connection.pubsub_numsub(job.channel)
        return int(count)


async def listening(hub: Hub, job: Job, count: int) -> None:
    await until(lambda: len(hub._listeners.get(job.channel, ())) == count and subscribers(job) == 1)


def publish(channel: str, message: bytes, times: int) -> None:
    with redis.Redis.from_url(settings().redis_url) as connection:
        pipe = connection.pipeline(transaction=False)
        for _ in range(times):
            pipe.publish(channel, message)
        pipe.execute()


def channel_subscribers(job_id: str) -> int:
    with redis.Redis.from_url(settings().redis_url) as connection:
        ((_, count),) = connection.pubsub_numsub(events.channel(UUID(job_id)))
        return int(count)


def wait_for(condition: Callable[[], bool], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to be"
        time.sleep(0.02)

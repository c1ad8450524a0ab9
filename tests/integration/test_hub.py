"""The hub and the streams on it, against a real Redis that dies, and readers that do not read."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
import redis

from api.jobs import frames
from api.jobs.hub import QUEUE, Ended, Hub, Message, Subscription, Told
from api.jobs.watch import Watch
from domain.pipelines import ResultFile
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import events
from storage.configuration import settings
from storage.database import autocommit
from storage.jobs import transitions
from tests import job_rows
from tests.api_process import ApiProcess, api_process
from tests.client import User

SOON = 13.0  # below the 15 s after which a stream looks for itself, and long enough for a busy machine


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


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


class Job:
    """A job that is moved on as a worker would, event by event."""

    def __init__(self) -> None:
        self.id = job_rows.queued()
        self.channel = events.channel(self.id)

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
    async with aclosing(frames.of_job(hub, job_id, seen)) as source:
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


def test_every_stream_of_a_job_gets_every_event_once() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            streams = [group.create_task(numbers(hub, job.id, seen)) for seen in (0, 0, 1)]
            await listening(hub, job, 3)
            began = time.monotonic()
            for _ in range(20):
                await asyncio.to_thread(job.attempt)
            await asyncio.to_thread(job.succeed)
            whole = list(range(1, 44))
            assert [await one for one in streams] == [whole, whole, whole[1:]]
            assert time.monotonic() - began < SOON
            await until(lambda: subscribers(job) == 0)

    run(test())


def test_streams_that_begin_in_the_middle_of_it_all_get_everything() -> None:
    """Subscribing takes effect some time after the table was read; what was published between is not lost."""

    async def test() -> None:
        async with hub_running() as hub:
            for _ in range(25):
                job = Job()
                async with asyncio.timeout(SOON), asyncio.TaskGroup() as group:
                    streams = [group.create_task(numbers(hub, job.id)) for _ in range(3)]
                    group.create_task(asyncio.to_thread(job.succeed))
                assert [one.result() for one in streams] == [[1, 2, 3]] * 3

    run(test())


def test_what_happens_while_redis_is_away_is_told_when_it_is_back(in_process: Stack) -> None:
    async def test() -> None:
        job, after = Job(), Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            one, other = (group.create_task(numbers(hub, each.id)) for each in (job, after))
            await listening(hub, job, 1)
            await listening(hub, after, 1)
            await asyncio.to_thread(in_process.processes["redis"].stop)
            try:
                await asyncio.to_thread(job.succeed)  # cannot be announced
                late = group.create_task(numbers(hub, after.id))  # begins meanwhile
                await until(lambda: len(hub._listeners[after.channel]) == 2)
            finally:
                await asyncio.to_thread(in_process.processes["redis"].start)
            began = time.monotonic()
            assert await one == [1, 2, 3]
            await until(lambda: hub._pubsub is not None)
            await listening(hub, after, 2)
            await asyncio.to_thread(after.succeed)
            assert (await other, await late) == ([1, 2, 3], [1, 2, 3])
            assert time.monotonic() - began < SOON

    run(test())


def test_a_killed_redis_makes_no_gap(in_process: Stack) -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            followed = group.create_task(numbers(hub, job.id))
            await listening(hub, job, 1)
            for count in range(30):
                await asyncio.to_thread(job.attempt)
                if count == 10:
                    in_process.processes["redis"].kill()
                await asyncio.sleep(0.02)
            began = time.monotonic()
            await asyncio.to_thread(job.succeed)
            assert await followed == list(range(1, 64))
            assert time.monotonic() - began < SOON

    run(test())


def test_a_connection_cut_by_the_server_makes_every_stream_look_again() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            followed = group.create_task(numbers(hub, job.id))
            await listening(hub, job, 1)
            await asyncio.to_thread(partial(job.succeed, announced=False))
            with redis.Redis.from_url(settings().redis_url) as connection:
                connection.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            async with asyncio.timeout(SOON):
                assert await followed == [1, 2, 3]

    run(test())


def test_a_missing_event_is_noticed_by_the_next_one() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            followed = group.create_task(numbers(hub, job.id))
            await listening(hub, job, 1)
            await asyncio.to_thread(partial(job.attempt, announced=False))
            await asyncio.to_thread(job.succeed)
            async with asyncio.timeout(SOON):
                assert await followed == [1, 2, 3, 4, 5]

    run(test())


def test_what_pub_sub_has_lost_is_noticed_at_the_second_look() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            watch = Watch(hub)
            followed = group.create_task(numbers(hub, job.id))
            await listening(hub, job, 1)
            await asyncio.to_thread(partial(job.attempt, announced=False))
            await asyncio.to_thread(partial(job.succeed, announced=False))
            assert not followed.done()
            await watch.look()  # a message may be on its way still
            await watch.look()
            async with asyncio.timeout(SOON):
                assert await followed == [1, 2, 3, 4, 5]

    run(test())


def test_looking_disturbs_no_stream_that_has_heard_everything() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, hub.listen(job.channel) as subscription:
            watch = Watch(hub)
            await listening(hub, job, 1)
            await watch.look()
            await watch.look()
            while await soon(subscription, 0.2):
                pass
            await asyncio.to_thread(job.attempt)
            assert await soon(subscription, SOON)
            assert await soon(subscription, SOON)
            for _ in range(3):
                await watch.look()
            assert await soon(subscription, 0.2) is None

    run(test())


# ---------------------------------------------------------------- readers that do not read


def test_a_reader_that_does_not_read_is_cut_off_with_bounded_memory_and_holds_up_nobody() -> None:
    async def test() -> None:
        job = Job()
        progress = msgspec.json.encode({"job_id": str(job.id), "type": "progress"})
        async with hub_running() as hub, hub.listen(job.channel) as stalled, hub.listen(job.channel) as reading:
            await listening(hub, job, 2)
            heard = 0
            while await soon(reading, 0.3):  # what subscribing itself has caused
                pass
            for _ in range(3 * QUEUE // 64):
                await asyncio.to_thread(publish, job.channel, progress, 64)
                while message := await soon(reading, 0.2):
                    heard += isinstance(message, Told)
                assert len(stalled._messages) <= QUEUE
            assert heard == 3 * QUEUE // 64 * 64
            rest = []
            while message := await soon(stalled, 0.1):
                rest.append(message)
            assert any(isinstance(message, Ended) for message in rest)
            assert len(rest) < QUEUE

    run(test())


def publish(channel: str, message: bytes, times: int) -> None:
    with redis.Redis.from_url(settings().redis_url) as connection:
        pipe = connection.pipeline(transaction=False)
        for _ in range(times):
            pipe.publish(channel, message)
        pipe.execute()


def test_a_stream_that_was_cut_off_is_resumed_where_it_stopped() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub:
            stalled = ids(hub, job.id)
            assert await anext(stalled) == 1  # and reads no more for a while
            await listening(hub, job, 1)
            for _ in range(QUEUE // 2 + 20):
                await asyncio.to_thread(job.attempt)
            await asyncio.to_thread(job.succeed)
            last = QUEUE + 43
            async with asyncio.timeout(SOON):
                seen = [1] + [number async for number in stalled]
                assert seen == list(range(1, len(seen) + 1))
                rest = [] if seen[-1] == last else await numbers(hub, job.id, seen[-1])
                assert seen + rest == list(range(1, last + 1))

    run(test())


# ---------------------------------------------------------------- nothing is left behind


def test_streams_leave_nothing_behind_however_they_end() -> None:
    async def test() -> None:
        jobs = [Job() for _ in range(10)]
        async with hub_running() as hub:
            tasks = [asyncio.create_task(numbers(hub, job.id)) for job in jobs for _ in range(2)]
            for job in jobs:
                await listening(hub, job, 2)
            for job in jobs[:3]:
                await asyncio.to_thread(job.succeed)
            for task in tasks[6:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert hub._listeners == {}
            for job in jobs:
                await until(lambda job=job: subscribers(job) == 0)  # type: ignore[misc]
            assert hub._pubsub is not None
            pubsub = hub._pubsub
            await until(lambda: set(pubsub.channels) == {b"millrace:hub"})

    run(test())


def test_a_stream_that_begins_as_another_one_ends_keeps_its_subscription() -> None:
    async def test() -> None:
        async with hub_running() as hub:
            for _ in range(10):
                job = Job()
                first = asyncio.create_task(numbers(hub, job.id))
                await asyncio.sleep(0.005)
                first.cancel()
                second = asyncio.create_task(numbers(hub, job.id))
                await asyncio.gather(first, return_exceptions=True)
                await listening(hub, job, 1)
                await asyncio.to_thread(job.succeed)
                async with asyncio.timeout(SOON):
                    assert await second == [1, 2, 3]

    run(test())


def test_the_stream_of_a_deleted_job_ends() -> None:
    async def test() -> None:
        job = Job()
        async with hub_running() as hub, asyncio.TaskGroup() as group:
            watch = Watch(hub)
            followed = group.create_task(numbers(hub, job.id))
            await listening(hub, job, 1)
            await watch.look()
            assert not followed.done()
            await asyncio.to_thread(job_rows.clear)
            await watch.look()
            await asyncio.sleep(0)
            assert not followed.done(), "what is told of it last may still be on its way"
            await watch.look()
            async with asyncio.timeout(SOON):
                assert await followed == [1]

    run(test())


# ---------------------------------------------------------------- a real server


@pytest.fixture
def api(in_process: Stack, tmp_path: Path) -> Iterator[ApiProcess]:
    with api_process({**os.environ, **in_process.env}, tmp_path / "api.log") as api:
        yield api


def channel_subscribers(job_id: str) -> int:
    with redis.Redis.from_url(settings().redis_url) as connection:
        ((_, count),) = connection.pubsub_numsub(events.channel(UUID(job_id)))
        return int(count)


def wait_for(condition: Callable[[], bool], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to be"
        time.sleep(0.02)


def test_clients_that_vanish_leave_no_subscription_behind(api: ApiProcess) -> None:
    with User(api.url) as user:
        job_id = user.http.post("/jobs", json={"title": "waits"}).json()["id"]
        clients = [httpx.Client(headers=user.http.headers, trust_env=False) for _ in range(5)]
        followed = []
        for client in clients:
            request = client.build_request("GET", f"{api.url}/api/v1/jobs/{job_id}/events")
            followed.append(client.send(request, stream=True).iter_raw())
            assert next(followed[-1])
        wait_for(lambda: channel_subscribers(job_id) == 1)
        for client in clients:
            client.close()
        wait_for(lambda: channel_subscribers(job_id) == 0)


def test_sigterm_ends_open_streams_and_the_server_quickly(api: ApiProcess) -> None:
    with User(api.url) as user:
        job_id = user.http.post("/jobs", json={"title": "waits"}).json()["id"]
        ended: list[str] = []

        def follow() -> None:
            with User(api.url, user.http.headers["Authorization"].removeprefix("Bearer ")) as reader:
                ended.extend(event.type for event in reader.events(job_id))

        followed = [threading.Thread(target=follow) for _ in range(3)]
        for thread in followed:
            thread.start()
        wait_for(lambda: ended == ["created"] * 3 and channel_subscribers(job_id) == 1)
        began = time.monotonic()
        api.process.terminate()
        api.process.wait(10)
        took = time.monotonic() - began
        for thread in followed:
            thread.join(5)
    assert took < 3, f"it took {took:.1f} s"
    assert not any(thread.is_alive() for thread in followed)


def test_a_position_that_cannot_be_is_no_reason_to_fall_silent(api: ApiProcess) -> None:
    with User(api.url) as user:
        job_id = user.http.post("/jobs", json={"title": "waits"}).json()["id"]
        for position in (b"x", b"-1", b"1.5", b"9" * 20, b"\xb2"):  # the last one is a digit, but no number: ²
            answer = user.http.get(f"/jobs/{job_id}/events", headers={b"Last-Event-ID": position})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), position
        job_rows.change(UUID(job_id), "cancel_requested_at = now()")
        ahead = threading.Timer(0.5, finish_cancelled)
        ahead.start()
        assert [event.type for event in user.events(job_id, after=4000)] == ["cancelled"]
        ahead.join()


def finish_cancelled() -> None:
    from storage.jobs import sweep

    with autocommit() as connection:
        events.announce([(moved.owner_id, moved.event) for moved in sweep.finish_cancelled(connection)])

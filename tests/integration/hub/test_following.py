"""Streams on the hub get every event once, also of a Redis that dies."""

import asyncio
import time
from functools import partial

import redis

from api.jobs.watch import Watch
from stack.up import Stack
from storage.configuration import settings
from tests.streamed_jobs import (
    SOON,
    Job,
    hub_running,
    listening,
    numbers,
    run,
    soon,
    subscribers,
    until,
)


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
        async with hub_running() as hub:
            with hub.listen(job.channel, job.reader) as subscription:
                watch = Watch(hub)
                await listening(hub, job, 1)
                await watch.look()
                await watch.look()
                assert await soon(subscription, SOON), "subscribing itself, and perhaps looking, has caused it"
                while await soon(subscription, 0.2):
                    pass
                await asyncio.to_thread(job.attempt)
                assert await soon(subscription, SOON)
                assert await soon(subscription, SOON)
                for _ in range(3):
                    await watch.look()
                assert await soon(subscription, 0.2) is None

    run(test())

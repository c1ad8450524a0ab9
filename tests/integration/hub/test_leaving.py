"""Readers that do not read, and what streams leave behind: of the hub, and of a real server."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import msgspec
import pytest

from api.jobs.hub import QUEUE, Ended, Reread, Told
from api.jobs.watch import Watch
from stack.up import Stack
from storage import events
from storage.database import autocommit
from tests import job_rows
from tests.api_process import ApiProcess, api_process
from tests.client import User
from tests.streamed_jobs import (
    SOON,
    Job,
    channel_subscribers,
    hub_running,
    ids,
    listening,
    numbers,
    publish,
    run,
    soon,
    subscribers,
    until,
    wait_for,
)

# ---------------------------------------------------------------- readers that do not read


def test_a_reader_that_does_not_read_is_cut_off_with_bounded_memory_and_holds_up_nobody() -> None:
    async def test() -> None:
        job = Job()
        progress = msgspec.json.encode({"job_id": str(job.id), "type": "progress"})
        async with hub_running() as hub:
            with hub.listen(job.channel, job.reader) as stalled, hub.listen(job.channel, job.reader) as reading:
                await listening(hub, job, 2)
                heard = 0
                assert isinstance(await soon(reading, SOON), Reread), "subscribing itself has caused it"
                for number in range(1, 3 * QUEUE // 64 + 1):
                    await asyncio.to_thread(publish, job.channel, progress, 64)
                    while heard < number * 64 and (message := await soon(reading, SOON)):
                        heard += isinstance(message, Told)
                    assert len(stalled._messages) <= QUEUE
                assert heard == 3 * QUEUE // 64 * 64
                rest = []
                while message := await soon(stalled, 0.1):
                    rest.append(message)
                assert any(isinstance(message, Ended) for message in rest)
                assert len(rest) < QUEUE

    run(test())


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

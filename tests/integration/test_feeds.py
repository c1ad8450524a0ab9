"""The feed of an owner: each event once, whatever the order of the commits, however often it is taken up again."""

import asyncio
import random
import threading
from collections import defaultdict
from contextlib import aclosing
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Connection, text

from api.jobs import frames
from api.jobs.hub import Hub
from api.jobs.watch import Watch
from domain.errors.requests import Invalid
from domain.jobs import Event
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import accounts, feeds
from storage.database import autocommit, engine
from storage.jobs import transitions
from tests import job_rows
from tests.streamed_jobs import Job, hub_running, run, until

Place = tuple[UUID, int]


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def no_jobs() -> None:
    job_rows.clear()


def owner_of(job_id: UUID) -> UUID:
    owner: UUID = job_rows.row(job_id)["owner_id"]
    return owner


def give(job_ids: list[UUID], owner: UUID) -> None:
    """Make these jobs, and what has happened to them, the owner's."""
    with autocommit() as connection:
        connection.execute(
            text("UPDATE jobs SET owner_id = :owner WHERE id = ANY(:ids)"), {"owner": owner, "ids": job_ids}
        )


def read(owner: UUID, position: str, limit: int = feeds.BATCH) -> tuple[list[Place], str]:
    with autocommit() as connection:
        batch = feeds.news(connection, owner, position, limit)
    return [(event.job_id, event.seq or 0) for _, event in batch.events], batch.position


def here() -> str:
    with autocommit() as connection:
        return feeds.now(connection)


def step(job_id: UUID, slow: Connection | None = None) -> None:
    """Two events, the second in the transaction ``slow``, which is not committed yet."""
    with autocommit() as connection:
        claim = transitions.claim(connection, job_id, "inspect", "w", 60)
        assert claim
        assert transitions.interrupt(slow or connection, claim[0])


def test_what_commits_later_with_the_lower_number_is_neither_skipped_nor_repeated() -> None:
    early, late = job_rows.queued(), job_rows.queued()
    owner = owner_of(early)
    give([late], owner)
    position = here()
    with engine().connect() as slow, slow.begin():
        step(early, slow)
        step(late)
        seen, position = read(owner, position)
        assert seen == [(early, 2), (late, 2), (late, 3)]
        assert read(owner, position)[0] == []
    seen, position = read(owner, position)
    assert seen == [(early, 3)]
    assert read(owner, position)[0] == []


def test_a_job_keeps_its_order_where_the_longer_transaction_has_the_lower_number() -> None:
    job_id = job_rows.queued()
    owner, position = owner_of(job_id), here()
    with engine().connect() as slow, slow.begin():
        slow.execute(text("SELECT pg_current_xact_id()"))  # it has its number, as after writing effects
        step(job_id)
        step(job_id, slow)
    assert read(owner, position)[0] == [(job_id, seq) for seq in (2, 3, 4, 5)]
    some, middle = read(owner, position, limit=3)
    rest, _ = read(owner, middle, limit=3)
    assert some + rest == [(job_id, seq) for seq in (2, 3, 4, 5)]


@pytest.mark.parametrize("seed", range(3))
def test_a_reader_that_is_cut_off_anywhere_reads_everything_once(seed: int) -> None:
    jobs = [job_rows.queued() for _ in range(8)]
    owner = owner_of(jobs[0])
    give(jobs, owner)
    chance, done = random.Random(seed), threading.Event()
    seen: list[Place] = []

    def write(own: list[UUID], chance: random.Random) -> None:
        for _ in range(25):
            with engine().connect() as connection, connection.begin():
                connection.execute(text("SELECT pg_current_xact_id()"))
                step(chance.choice(own), connection)
                connection.execute(text("SELECT pg_sleep(:s)"), {"s": chance.random() / 100})

    position = feeds.BEGINNING
    writers = [threading.Thread(target=write, args=(jobs[n::4], random.Random(seed + n))) for n in range(4)]
    for writer in writers:
        writer.start()
    while not done.is_set():
        if not any(writer.is_alive() for writer in writers):
            done.set()  # and read once more
        while True:
            with autocommit() as connection:
                batch = feeds.news(connection, owner, position, chance.randint(1, 9))
            if not batch.events:
                break
            # the connection is lost after some of them: what was read last says where to go on
            heard = batch.events[: chance.randint(1, len(batch.events))]
            seen += [(event.job_id, event.seq or 0) for _, event in heard]
            position = heard[-1][0]
    by_job = defaultdict(list)
    for job_id, seq in seen:
        by_job[job_id].append(seq)
    assert sum(len(numbers) for numbers in by_job.values()) == 1 + 4 * 25 * 2
    for job_id, numbers in by_job.items():
        first = 1 if job_id == jobs[0] else 2  # what happened before it was the owner's
        assert numbers == list(range(first, job_rows.row(job_id)["event_seq"] + 1))


@pytest.mark.parametrize(
    "position",
    ["", "x", "1", "1:2", "9:1:", "5:9:7,6", "1:1:~1:1:~1.x.1", f"{2**70}:1:", "1:1:~1:1:~1." + "-" * 36 + ".1"],
)
def test_what_is_no_position_is_named_so(position: str) -> None:
    with pytest.raises(Invalid):
        read(owner_of(job_rows.queued()), position)


def test_nobody_reads_what_is_anothers() -> None:
    mine, other = job_rows.queued(), job_rows.queued()
    assert owner_of(mine) != owner_of(other)
    assert read(owner_of(mine), feeds.BEGINNING)[0] == [(mine, 1)]


async def followed(
    hub: Hub,
    owner: UUID,
    position: str | None,
    told: list[tuple[str | None, Place]],
    begun: asyncio.Event | None = None,
) -> None:
    (reader,) = accounts.principals([owner])
    async with aclosing(frames.of_owner(hub, reader, position)) as source:
        async for frame in source:
            if begun and frame.place:
                begun.set()
            if frame.type is not None:
                event = msgspec.json.decode(frame.data, type=Event)
                told.append((frame.place, (event.job_id, event.seq or 0)))


def test_a_stream_of_all_jobs_is_live_and_goes_on_where_it_was_cut_off() -> None:
    async def test() -> None:
        jobs = [Job() for _ in range(3)]
        owner = owner_of(jobs[0].id)
        give([job.id for job in jobs], owner)
        told: list[tuple[str | None, Place]] = []
        async with hub_running() as hub:
            begun = asyncio.Event()
            first = asyncio.create_task(followed(hub, owner, None, told, begun))
            await begun.wait()  # with where it begins: what happens from now on is told
            for job in jobs:
                await asyncio.to_thread(job.attempt)
            await until(lambda: len(told) == 6)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            for job in jobs:
                await asyncio.to_thread(job.succeed)
            second = asyncio.create_task(followed(hub, owner, told[3][0], told[4:] and (again := [])))
            await until(lambda: len(again) == 8)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
        whole = [place for _, place in told[:4] + again]
        assert sorted(whole) == sorted((job.id, seq) for job in jobs for seq in (2, 3, 4, 5))

    run(test())


def test_a_lost_hint_is_made_up_for_by_the_next_look() -> None:
    async def test() -> None:
        job = Job()
        owner = owner_of(job.id)
        told: list[tuple[str | None, Place]] = []
        async with hub_running() as hub:
            watch = Watch(hub)
            stream = asyncio.create_task(followed(hub, owner, feeds.BEGINNING, told))
            await until(lambda: len(told) == 1)
            await watch.look()
            await asyncio.to_thread(lambda: job.attempt(announced=False))
            await watch.look()
            await until(lambda: len(told) == 3)
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)

    run(test())

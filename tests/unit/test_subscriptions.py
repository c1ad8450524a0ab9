"""Events are written past a stream: one that waits, has no gap, and whose connection takes what comes."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api.jobs import hub as hubs
from api.jobs.hub import PING_SECONDS, QUEUE, Ended, Hub, Quiet, Reread, Subscription, Told
from api.server import Wire, chunk_of
from domain.accounts import Principal, Role
from domain.identity import new_id


class Paper(Wire):
    """Keeps what is written, as long as it ``takes`` it."""

    def __init__(self) -> None:
        self.takes = True
        self.written: list[bytes] = []

    is_open = True

    def write(self, chunk: bytes) -> bool:
        if self.takes:
            self.written.append(chunk)
        return self.takes


def event(seq: int | None, kind: str = "stage") -> Told:
    number = b"" if seq is None else b',"seq":%d' % seq
    return Told(b'{"job_id":"01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77","type":"%s"%s}' % (kind.encode(), number))


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(5):
            await test

    asyncio.run(limited())


async def waiting(subscription: Subscription) -> "asyncio.Task[Any]":
    task = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    return task


def test_what_follows_goes_straight_to_the_wire_and_what_ends_the_stream_to_the_stream() -> None:
    async def test() -> None:
        paper = Paper()
        subscription = Subscription(4, paper)
        subscription.put(event(5))
        assert (paper.written, (await subscription.next()).seq) == ([], 5), "nobody waited"  # type: ignore[union-attr]
        subscription.seen = 5
        task = await waiting(subscription)
        for told in (event(6), event(None, "progress"), event(7)):
            subscription.put(told)
        assert paper.written == [chunk_of(one.sse) for one in (event(6), event(None, "progress"), event(7))]
        assert (subscription.seen, task.done()) == (7, False)
        subscription.put(event(8, "succeeded"))
        assert (await task).seq == 8
        assert len(paper.written) == 3

    run(test())


def test_a_gap_and_a_full_connection_wake_the_stream_and_what_comes_then_waits_its_turn() -> None:
    async def test() -> None:
        for takes, number in ((True, 3), (False, 2)):
            paper = Paper()
            subscription = Subscription(1, paper)
            task = await waiting(subscription)
            paper.takes = takes
            subscription.put(event(number))
            paper.takes = True
            subscription.put(event(number + 1))  # before the stream has had its turn
            subscription.put(event(None, "progress"))
            assert paper.written == []
            assert subscription.seen == 1
            told = [await task, await subscription.next(), await subscription.next()]
            assert [one.seq for one in told] == [number, number + 1, None]

    run(test())


def test_repeated_hints_are_one_and_too_much_is_the_end() -> None:
    async def test() -> None:
        subscription = Subscription()
        for _ in range(3):
            subscription.put(Reread())
        for _ in range(3):
            subscription.put(Quiet())
        assert isinstance(await subscription.next(), Reread)
        assert isinstance(await subscription.next(), Quiet)
        for number in range(1, QUEUE + 2):
            subscription.put(event(number))
        assert isinstance(await subscription.next(), Ended)

    run(test())


def test_a_frame_is_what_a_reader_of_chunks_expects() -> None:
    told = event(7)
    assert told.sse == b"id: 7\nevent: stage\ndata: " + told.data + b"\n\n"
    size, rest = told.chunk.split(b"\r\n", 1)
    assert rest == told.sse + b"\r\n"
    assert int(size, 16) == len(told.sse)


def test_every_stream_is_given_a_sign_of_life_every_fifteen_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    real = asyncio.sleep
    monkeypatch.setattr(hubs.asyncio, "sleep", sleep)

    async def test() -> None:
        hub = Hub("redis://127.0.0.1:1")
        reader = Principal(id=new_id(), username="a", role=Role.USER, generation=1)
        streams = [Subscription() for _ in range(100)]
        for one in streams:
            hub.add("channel", reader, one)
        pinging = asyncio.create_task(hub._ping())
        signs = []
        for rounds in (1, 2):
            while sum(slept) < rounds * PING_SECONDS:
                await real(0)
            await real(0)
            assert all([isinstance(await one.next(), Quiet) for one in streams]), "each of them, once in the time"
            signs.append(sum(bool(one._messages) for one in streams))
        pinging.cancel()
        assert signs == [0, 0]

    run(test())
    assert PING_SECONDS == 15

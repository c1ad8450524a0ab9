"""Streams of a real API process whose clients, Redis and readers are as bad as they come."""

import asyncio
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import msgspec
import psutil
import pytest
import redis

from migrations.__main__ import upgrade
from stack.up import Stack
from storage.configuration import settings
from tests import job_rows
from tests.api_process import api_process
from tests.client import User
from tests.forgetful_redis import ForgetfulRedis
from tests.streamed_jobs import Job, channel_subscribers, until, wait_for

MIB = 1024**2
RECONNECTS = 1000
_EVENT = re.compile(rb"(?:id: (\d+)\n)?event: (\w+)\ndata: (.*)\n\n")


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@contextmanager
def served(stack: Stack, **env: str) -> Iterator[tuple[str, int]]:
    """(URL, process id) of an API that lets an owner have many streams."""
    more = {"OWNER_STREAMS": "1000", "LOG_LEVEL": "error", **env}
    with api_process({**os.environ, **stack.env, **more}, stack.data_dir / "api-of-its-own.log") as api:
        yield api.url, api.process.pid


class Reader:
    """A stream of raw bytes, so that it can be cut anywhere."""

    def __init__(self, url: str, token: str, job_id: UUID) -> None:
        self.address = urlsplit(url)
        self.head = f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        self.numbers: list[int] = []
        self.heard: dict[int, float] = {}  # number: when
        self.progress = 0
        self.ended = False

    async def connect(self, buffer: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        bare = socket.socket()
        if buffer:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        bare.setblocking(False)
        await asyncio.get_running_loop().sock_connect(bare, (self.address.hostname, self.address.port))
        reader, writer = await asyncio.open_connection(sock=bare, limit=buffer or 2 * MIB)
        last = f"Last-Event-ID: {self.numbers[-1]}\r\n" if self.numbers else ""
        writer.write(f"{self.head}{last}\r\n".encode())
        return reader, writer

    async def read(self, most: int | None = None) -> None:
        """Read ``most`` bytes of the stream and break the connection, or read to its end."""
        reader, writer = await self.connect()
        try:
            status = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            if status == b"204":
                self.ended = True
                return
            assert status == b"200"
            text = b""
            taken = 0
            while size := int(await reader.readuntil(b"\r\n"), 16):
                chunk = (await reader.readexactly(size + 2))[:-2]
                if most is not None and taken + size > most:
                    self._take(text + chunk[: most - taken])
                    return
                taken += size
                text = self._take(text + chunk)
            self.ended = bool(self.numbers) and self._over
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.transport.abort()

    _over = False

    def _take(self, text: bytes) -> bytes:
        """Take whole events; the rest is what was cut off, which nobody has seen."""
        at = 0
        for found in _EVENT.finditer(text):
            at = found.end()
            if found[1]:
                self.numbers.append(int(found[1]))
                self.heard[int(found[1])] = time.monotonic()
                self._over = found[2] in (b"succeeded", b"failed", b"cancelled")
            else:
                self.progress += 1
        return text[at:]


@contextmanager
def owner(url: str, *jobs: Job) -> Iterator[str]:
    """The Authorization of an account to which these jobs belong."""
    with User(url) as user:
        mine = user.http.get("/auth/me").json()["id"]
        for job in jobs:
            job_rows.change(job.id, f"owner_id = '{mine}'")
        yield user.http.headers["Authorization"]


def run(test: Any, seconds: float = 60) -> None:
    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await test

    asyncio.run(limited())


# ---------------------------------------------------------------- a thousand cuts


def test_a_thousand_forced_reconnects_make_no_gap_and_repeat_nothing(in_process: Stack) -> None:
    dice = random.Random(7)
    jobs = [Job() for _ in range(8)]
    cuts = 0

    async def follow(reader: Reader) -> None:
        nonlocal cuts
        while not reader.ended:
            cutting = cuts < RECONNECTS
            cuts += cutting
            await reader.read(dice.randint(20, 1200) if cutting else None)

    async def move_on() -> None:
        while cuts < RECONNECTS:
            await asyncio.to_thread(dice.choice(jobs).attempt)
        for job in jobs:
            await asyncio.to_thread(job.succeed)

    async def test(url: str, token: str) -> None:
        readers = [Reader(url, token, job.id) for job in jobs for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            group.create_task(move_on())
            for reader in readers:
                group.create_task(follow(reader))
        for index, reader in enumerate(readers):
            last = job_rows.row(jobs[index // 3].id)["event_seq"]
            assert reader.numbers == list(range(1, last + 1))

    with served(in_process) as (url, _), owner(url, *jobs) as token:
        run(test(url, token))
        assert cuts == RECONNECTS
        for job in jobs:
            wait_for(lambda job=job: channel_subscribers(str(job.id)) == 0)  # type: ignore[misc]


# ---------------------------------------------------------------- lost messages


def test_one_message_in_ten_is_lost_and_made_up_for_within_two_seconds(in_process: Stack) -> None:
    jobs = [Job() for _ in range(10)]
    told: dict[tuple[UUID, int], float] = {}

    async def live(job: Job) -> None:
        for _ in range(8):
            await asyncio.to_thread(job.attempt)
            note(job)
            await asyncio.sleep(0.25)
        await asyncio.to_thread(job.succeed)
        note(job)

    def note(job: Job) -> None:
        now, last = time.monotonic(), job_rows.row(job.id)["event_seq"]
        for number in range(1, last + 1):
            told.setdefault((job.id, number), now)

    async def test(url: str, token: str, forgetful: ForgetfulRedis) -> None:
        readers = [Reader(url, token, job.id) for job in jobs for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for reader in readers:
                group.create_task(reader.read())
            for job in jobs:
                await asyncio.to_thread(wait_for, lambda job=job: channel_subscribers(str(job.id)) == 1)
            async with asyncio.TaskGroup() as lives:
                for job in jobs:
                    lives.create_task(live(job))
        delays = []
        for index, reader in enumerate(readers):
            job = jobs[index // 2]
            assert reader.numbers == list(range(1, job_rows.row(job.id)["event_seq"] + 1))
            delays += [reader.heard[number] - told[job.id, number] for number in reader.numbers if number > 1]
        assert forgetful.dropped >= 8
        assert forgetful.dropped / (forgetful.dropped + forgetful.passed) < 0.2
        assert max(delays) < 2.0, f"{max(delays):.1f} s"

    address = urlsplit(in_process.env["REDIS_URL"])
    with ForgetfulRedis(address.port or 0, 0.1) as forgetful:
        through = urlunsplit(address._replace(netloc=address.netloc.replace(str(address.port), str(forgetful.port))))
        with served(in_process, REDIS_URL=through) as (url, _), owner(url, *jobs) as token:
            run(test(url, token, forgetful))


# ---------------------------------------------------------------- readers that stall


def test_a_hundred_stalled_readers_cost_little_and_disturb_nobody(in_process: Stack) -> None:
    job = Job()
    message = msgspec.json.encode(
        {"job_id": str(job.id), "type": "progress", "at": "2025-09-15T11:41:51Z", "data": {"message": "x" * 8000}}
    )
    bursts, burst = 20, 40

    async def test(url: str, token: str, pid: int) -> None:
        process = psutil.Process(pid)
        stalled, reading = [Reader(url, token, job.id) for _ in range(100)], Reader(url, token, job.id)
        held = [await one.connect(buffer=4096) for one in stalled]
        async with asyncio.TaskGroup() as group:
            group.create_task(reading.read())
            await until(lambda: reading.numbers == [1])
            await asyncio.sleep(0.5)  # subscribing makes each stream look once more
            idle = peak = process.memory_info().rss
            slowest = 0.0
            for number in range(bursts):
                began = time.monotonic()
                await asyncio.to_thread(publish, job.channel, message, burst)
                await until(lambda number=number: reading.progress == (number + 1) * burst)  # type: ignore[misc]
                slowest = max(slowest, time.monotonic() - began)
                peak = max(peak, process.memory_info().rss)
            # each of them was sent 6 MB: 600 in all, had they been kept
            assert peak - idle < 64 * MIB, f"{(peak - idle) / MIB:.0f} MiB"
            assert slowest < 3, f"{slowest:.1f} s"
            for reader, writer in held:
                with suppress(ConnectionError):
                    while await reader.read(MIB):  # what was on its way, then the end: it was cut off
                        pass
                writer.transport.abort()
            await asyncio.sleep(0)
            await asyncio.to_thread(job.succeed)
        assert reading.ended
        assert reading.numbers == [1, 2, 3]
        await stalled[0].read()  # and may come back
        assert stalled[0].numbers == [1, 2, 3]

    with served(in_process) as (url, pid), owner(url, job) as token:
        run(test(url, token, pid))


def publish(channel: str, message: bytes, times: int) -> None:
    with redis.Redis.from_url(settings().redis_url) as connection:
        pipe = connection.pipeline(transaction=False)
        for _ in range(times):
            pipe.publish(channel, message)
        pipe.execute()

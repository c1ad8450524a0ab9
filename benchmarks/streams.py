"""How fast and how light events reach those who listen, against subscribing to Redis itself.

As many server-sent event streams as raw SUBSCRIBE connections, the same messages, read by the same process; runs
alternate. A delay is from the PUBLISH to the read of the client. Every delivery is counted: one that is missing ends
the benchmark. Bursts come ten a second, as often as the percentages of a job are announced.
"""

import asyncio
import contextlib
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import msgspec
import psutil
import uvloop

from benchmarks.listeners import Heard, Listener, opened
from benchmarks.measure import Pair, Report, Run, cpu_seconds
from domain.jobs import Event, EventType
from stack.up import Stack, running
from storage.events import channel

KIB = 1024
BURSTS = 30
PAUSE = 0.1  # seconds between two bursts


class Bench:
    """An API process, jobs that somebody listens to, and one connection that publishes."""

    def __init__(self, stack: Stack, jobs: int) -> None:
        self.stack = stack
        self.api = stack.processes["api"].pid or 0
        self._account = {"username": "benchmark", "password": "correct horse battery"}
        with httpx.Client(base_url=f"{stack.url}/api/v1", trust_env=False, timeout=30) as http:
            http.post("/auth/register", json=self._account)
            token = http.post("/auth/login", json=self._account).raise_for_status().json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            self.jobs = [UUID(http.post("/jobs", json={"title": "listened to"}).json()["id"]) for _ in range(jobs)]
        self._head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        self.redis = urlsplit(stack.env["REDIS_URL"])
        self._auth = f"AUTH {self.redis.password}\r\n" if self.redis.password else ""
        self._event = {
            job: Event(
                job_id=job,
                type=EventType.PROGRESS,
                at=datetime.now(UTC),
                data={"status": "processing", "stage": "waiting", "progress": 40, "message": "@", "eta_seconds": 12},
            )
            for job in self.jobs
        }

    def streams(self, listeners: int) -> list[bytes]:
        """The requests of so many streams, spread over the jobs."""
        return [
            f"GET /api/v1/jobs/{self.jobs[one % len(self.jobs)]}/events {self._head}".encode()
            for one in range(listeners)
        ]

    def subscriptions(self, listeners: int) -> list[bytes]:
        return [
            f"{self._auth}SUBSCRIBE {channel(self.jobs[one % len(self.jobs)])}\r\n".encode() for one in range(listeners)
        ]

    async def listen(self, listeners: int, heard: Heard) -> list[Listener]:
        url = urlsplit(self.stack.url)
        found = await opened(url.hostname or "", url.port or 0, self.streams(listeners), b"id: 1\n", heard)
        await asyncio.sleep(1.0)  # subscribing counts a little later, and makes each stream look once more
        return found

    async def subscribe(self, listeners: int, heard: Heard) -> list[Listener]:
        found = await opened(
            self.redis.hostname or "", self.redis.port or 0, self.subscriptions(listeners), b":1\r\n", heard
        )
        await asyncio.sleep(1.0)
        return found

    async def delays(self, heard: Heard, listeners: int, bursts: int = BURSTS) -> list[float]:
        """Publish to every job, ``bursts`` times; the delay of each delivery, in seconds."""
        heard.expect(bursts * listeners)
        reader, writer = await asyncio.open_connection(self.redis.hostname, self.redis.port)
        if self._auth:
            writer.write(self._auth.encode())
            await reader.readline()
        for _ in range(bursts):
            began = time.perf_counter()
            for job in self.jobs:
                message = msgspec.json.encode(self._event[job]).replace(b"@", b"%d" % len(heard.sent))
                name = channel(job).encode()
                heard.sent.append(time.perf_counter())
                writer.write(
                    b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(message), message)
                )
            answers = 0
            while answers < len(self.jobs):
                answers += (await reader.read(65536)).count(b":")
            await asyncio.sleep(max(0.0, began + PAUSE - time.perf_counter()))
        async with asyncio.timeout(60):
            await heard.all.wait()
        await asyncio.sleep(0.1)
        if len(heard.delays) != heard.expected:
            raise RuntimeError(f"{len(heard.delays)} deliveries in place of {heard.expected}")
        writer.close()
        return list(heard.delays)


def percentile(delays: Sequence[float], share: float) -> float:
    return sorted(delays)[min(len(delays) - 1, int(share * len(delays)))] * 1000


async def let_go(listeners: Sequence[Listener]) -> None:
    for one in listeners:
        one.transport.abort()
    await asyncio.sleep(1.0)


async def compared(bench: Bench, listeners: int, pairs: int, name: str) -> tuple[Report, Report]:
    """p99 and p50 of the same bursts, one side after the other; both sides keep their connections for one pair."""
    last = Report(name, "ms (p99)", "1.4, then 1.1", "lower")
    middle = Report(f"{name}-p50", "ms (p50)", "none", "lower")
    cpu: list[float] = []

    async def ours() -> tuple[Run, Run]:
        heard = Heard()
        streams = await bench.listen(listeners, heard)
        used = cpu_seconds([bench.api])
        delays = await bench.delays(heard, listeners)
        used = cpu_seconds([bench.api]) - used
        cpu.append(used)
        await let_go(streams)
        count = len(delays)
        return Run(percentile(delays, 0.99), used, count), Run(percentile(delays, 0.5), used, count)

    async def baseline() -> tuple[Run, Run]:
        heard = Heard()
        subscribed = await bench.subscribe(listeners, heard)
        delays = await bench.delays(heard, listeners)
        await let_go(subscribed)
        return Run(percentile(delays, 0.99)), Run(percentile(delays, 0.5))

    await baseline()
    await ours()
    for number in range(pairs):
        if number % 2:
            other = await baseline()
            own = await ours()
        else:
            own = await ours()
            other = await baseline()
        last.pairs.append(Pair(own[0], other[0]))
        middle.pairs.append(Pair(own[1], other[1]))
    last.extra = {
        "listeners": listeners,
        "jobs": len(bench.jobs),
        "deliveries_a_run": BURSTS * listeners,
        "api_cpu_seconds_a_run": round(statistics.median(cpu), 2),
    }
    return last, middle


async def memory(bench: Bench, listeners: int) -> float:
    """KiB of the API for each stream that is open; a first round does not count, it grows what is kept anyway."""
    process = psutil.Process(bench.api)
    heard = Heard()
    await let_go(await bench.listen(20, heard))
    idle = process.memory_info().rss
    streams = await bench.listen(listeners, heard)
    await bench.delays(heard, listeners, 3)
    grown = process.memory_info().rss - idle
    await let_go(streams)
    return grown / listeners / KIB


async def many(bench: Bench, listeners: int) -> dict[str, Any]:
    """So many held at once, and every event delivered to every one of them."""
    heard = Heard()
    began = time.perf_counter()
    streams = await bench.listen(listeners, heard)
    opening = time.perf_counter() - began - 1.0
    delays = await bench.delays(heard, listeners, 5)
    lost = sum(one.lost or one.numbers != 5 for one in streams)
    await let_go(streams)
    if lost:
        raise RuntimeError(f"{lost} of {listeners} streams missed something")
    return {
        "listeners_held": listeners,
        "all_delivered": True,
        "opened_in_seconds": round(opening, 1),
        "p99_ms": round(percentile(delays, 0.99), 1),
    }


@contextlib.contextmanager
def many_files() -> Iterator[int]:
    """As many open files as this process may have, for what it starts, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main(pairs: int = 5, listeners: int = 1000, most: int = 5000) -> list[Report]:
    """Measure; about two minutes."""
    reports: list[Report] = []
    env = {"LOG_LEVEL": "warning", "OWNER_STREAMS": str(10 * most)}
    with many_files() as files, running(only=["api"], env=env) as stack:
        for name, jobs in (("streams", 100), ("streams-one-job", 1)):
            bench = Bench(stack, jobs)
            # first: later the API has memory to spare from the streams before
            grown = uvloop.run(memory(bench, listeners)) if jobs > 1 else 0.0
            last, middle = uvloop.run(compared(bench, listeners, pairs, name))
            if jobs > 1:
                last.extra["kib_a_listener"] = round(grown, 1)
                held = min(most, files - 500)
                last.extra |= uvloop.run(many(bench, held - held % jobs))
            last.show()
            middle.show()
            reports += [last, middle]
    return reports


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--listeners", type=int, default=1000)
    parser.add_argument("--most", type=int, default=5000)
    options = parser.parse_args()
    main(options.pairs, options.listeners, options.most)

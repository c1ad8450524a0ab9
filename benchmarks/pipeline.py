"""Jobs a second through the whole pipeline, and the time from accepted to the first step, against bare Celery.

The whole pipeline is the real one: a small archive in S3 is inspected by ranged reads, submitted over HTTP to an ML
service that is done at once, its CSV result is read from S3, parsed and stored, and the job finished: 4 steps, 4 moves
and 5 events in Postgres. The baseline is a chain of 4 no-op tasks through the same broker and the same workers, without
result backend. Both are published by this process, in the same way, within the measured time.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import redis

from benchmarks.measure import Report, Run, alternate, cpu_seconds
from stack.up import Stack, running
from tests.own_settings import settings_of

LINKS = 4
RESULT = b"path,score,flagged\n" + b"".join(b"folder/member-%03d.txt,0.75,false\n" % n for n in range(11))
QUEUES = ("io", "cpu", "mail")


def due(job_id: UUID) -> Any:
    """The first step of a job of normal priority, to be published."""
    from storage.jobs.sweep import Due

    return Due(job_id=job_id, kind="inference", step="inspect", lane=0)


class Bench:
    """A running stack and what both sides need of it."""

    def __init__(self, stack: Stack, jobs: int) -> None:
        from storage import dispatch

        self.stack, self.jobs, self.dispatch = stack, jobs, dispatch
        self.redis = redis.Redis.from_url(stack.env["REDIS_URL"])
        self.rows = psycopg.connect(stack.env["DATABASE_URL"], autocommit=True)
        self.owner, self.file = self._input()

    def _input(self) -> tuple[UUID, UUID]:
        import io
        import zipfile

        from domain.accounts import Registration
        from domain.files import StoredObject
        from domain.identity import new_id
        from storage import accounts, files, objects

        owner = accounts.create(Registration(username=f"bench-{os.getpid()}", password="long enough"), "no hash").id
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number in range(10):
                archive.writestr(f"folder/member-{number:03}.txt", b"text\n" * 100)
        file_id = new_id()
        data = buffer.getvalue()
        objects.put(objects.input_key(file_id), data)
        stored = StoredObject(
            id=file_id,
            key=objects.input_key(file_id),
            name="bench.zip",
            size=len(data),
            sha256="0" * 64,
            content_type="application/zip",
            kind="zip",
        )
        return owner, files.create(owner, stored).id

    def prepare(self, count: int) -> list[UUID]:
        """Jobs in `queued` with their results in place, not yet published."""
        from domain.identity import new_id
        from storage import objects
        from storage.database import transaction
        from storage.jobs import commands

        ids = [new_id() for _ in range(count)]
        for job_id in ids:
            objects.put(objects.result_key(job_id, 1), RESULT)
        with transaction() as connection:
            for job_id in ids:
                job = commands.NewJob(
                    id=job_id,
                    owner_id=self.owner,
                    kind="inference",
                    title="bench",
                    description=None,
                    params={"profile": "default", "threshold": 0.5},
                    first_step="inspect",
                    input_file_id=self.file,
                )
                commands.create(connection, job, limit=10**6, republish=3600)
        return ids

    def cpu(self) -> float:
        own = time.process_time()
        return own + cpu_seconds(process.pid for process in self.stack.processes.values() if process.pid)

    def measured(self, publish: Callable[[], None], finished: Callable[[], bool]) -> Run:
        cpu, began = self.cpu(), time.perf_counter()
        publish()
        while not finished():
            time.sleep(0.02)
            if time.perf_counter() - began > 300:
                raise TimeoutError("the run did not finish within 300 s")
        seconds = time.perf_counter() - began
        return Run(value=self.jobs / seconds, cpu_seconds=self.cpu() - cpu, units=self.jobs)

    def ours(self) -> Run:
        ids = self.prepare(self.jobs)

        def publish() -> None:
            for job_id in ids:
                self.dispatch.publish(due(job_id))

        def finished() -> bool:
            left = self.rows.execute("SELECT count(*) FROM jobs WHERE status IN ('queued', 'processing')").fetchone()
            return left == (0,)

        run = self.measured(publish, finished)
        outcomes = self.rows.execute("SELECT DISTINCT status FROM jobs").fetchall()
        if outcomes != [("succeeded",)]:
            raise RuntimeError(f"jobs did not succeed: {outcomes}")
        self.rows.execute("DELETE FROM jobs")
        self.rows.execute("VACUUM ANALYZE")
        return run

    def baseline(self) -> Run:
        from celery import uuid

        def publish() -> None:
            for _ in range(self.jobs):
                links: list[dict[str, Any]] = [
                    {
                        "task": "benchmarks.noop",
                        "args": ("x",),
                        "kwargs": {},
                        "options": {"queue": "io", "task_id": uuid()},
                        "subtask_type": None,
                        "immutable": True,
                    }
                    for _ in range(LINKS - 1)
                ]
                self.dispatch.broker.send_task("benchmarks.noop", args=("x",), queue="io", chain=links)

        return self.measured(publish, self.idle)

    def idle(self) -> bool:
        """Nothing waits and nothing is unacknowledged; asked twice, as a link is published before the last is acked."""
        return all(self._nothing_waits() for _ in range(2))

    def _nothing_waits(self) -> bool:
        pipe = self.redis.pipeline()
        for queue in QUEUES:
            pipe.llen(queue)
        pipe.hlen("unacked")
        return not any(pipe.execute())

    def latency_of_jobs(self) -> float:
        """Median milliseconds from before the publish to the first claim, one job at a time."""
        times = []
        for job_id in self.prepare(20):
            began = time.time()
            self.dispatch.publish(due(job_id))
            while True:
                row = self.rows.execute(
                    "SELECT extract(epoch FROM started_at), status FROM jobs WHERE id = %s", [job_id]
                ).fetchone()
                if row and row[1] == "succeeded":
                    break
                time.sleep(0.002)
            times.append((float(row[0]) - began) * 1000)
        return statistics.median(times)

    def latency_of_tasks(self) -> float:
        """The same for a bare apply_async of a task that tells when it began."""
        self.redis.delete("benchmarks:latency")
        times = []
        for _ in range(20):
            self.dispatch.broker.send_task("benchmarks.stamp", args=(time.time(),), queue="io")
            popped = self.redis.blpop(["benchmarks:latency"], timeout=10)
            times.append(float(popped[1]) * 1000)
        return statistics.median(times)


def main(pairs: int = 7, jobs: int = 1000) -> list[Report]:
    """Measure; about a minute."""
    procfile = Path(__file__).parent / "Procfile"
    with running(procfile=procfile, env={"LOG_LEVEL": "warning"}) as stack, settings_of(stack.env):
        bench = Bench(stack, jobs)
        throughput = Report("pipeline", "jobs/s", "0.70, then 1.0; below 0.45 is a defect", "higher")
        throughput.pairs = alternate(pairs, bench.ours, bench.baseline)
        throughput.show()
        latency = Report("first-step", "ms", "at most 1.8", "lower")
        latency.pairs = alternate(pairs, lambda: Run(bench.latency_of_jobs()), lambda: Run(bench.latency_of_tasks()))
        latency.show()
        bench.rows.close()
    return [throughput, latency]


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    main(options.pairs, options.jobs)

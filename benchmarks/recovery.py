"""How long a step stands still when its worker is killed, and how fast the queue is rebuilt from Postgres.

**Recovery**: a worker's process, or the whole group, gets a SIGKILL while it waits for the ML service's answer to a
submission. Counted is the time until the same submission comes again, from another process. Leases, sweeps and
everything else are as in production. Bare Celery has nothing to compare with: it loses the task, or has it back after
the visibility timeout.

**Rebuild**: jobs are queued in Postgres, Redis is flushed and no worker runs. One sweep, as the sweeper runs it, finds
that their messages are lost and publishes all of them anew. The baseline is a loop of ``apply_async`` of the same
number of no-op tasks, in the same process.
"""

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import UUID

from benchmarks.measure import RESULTS, Report, Run, alternate, machine
from benchmarks.pipeline import Bench, due
from stack.up import running
from storage import logs
from storage.configuration import settings
from tests.own_settings import settings_of
from tests.scripted_ml import ScriptedMl

TOKEN = "token-of-the-benchmark"
PROCESSES = ("api", "worker", "sweeper", "beat")
RESTART_SECONDS = 0.2  # as soon as the supervisor starts a dead process again
PATIENCE_SECONDS = 60.0


class StallingMl(ScriptedMl):
    """Hears each job twice: it does not answer the first time, and is done at once the second time."""

    def __init__(self) -> None:
        super().__init__(TOKEN)
        self.resume = threading.Event()
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who was killed reads no answer

    def __enter__(self) -> "StallingMl":
        super().__enter__()
        return self

    def _default(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if len(self.submissions(request["job_uuid"])) == 1:
            self.resume.wait(PATIENCE_SECONDS)
        return self._done(request, file_size=400)

    def submitted_at(self, job_id: UUID, times: int) -> float:
        """When the job was submitted for the ``times``-th time, by the monotonic clock.

        Raises:
            TimeoutError: not within a minute.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := self.submissions(str(job_id))) < times:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} was submitted {len(found)} times, not {times}")
            time.sleep(0.002)
        return float(found[times - 1]["at"])


@dataclass
class Times(Report):
    """A report without a baseline: seconds, as they are on this machine."""

    runs: list[float] = field(default_factory=list)

    def show(self) -> None:
        median, shortest, longest = statistics.median(self.runs), min(self.runs), max(self.runs)
        print(f"{self.name}: {len(self.runs)} runs ({self.better} is better; there is no baseline)")
        print(f"  ours      median {median:10.2f} {self.unit}  (min {shortest:.2f}, max {longest:.2f})")
        print(f"  aim       {self.aim}")
        for name, value in self.extra.items():
            print(f"  {name}: {value}")
        RESULTS.mkdir(exist_ok=True)
        content = asdict(self) | {"median": median, "machine": machine()}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(content, indent=2))


class Recovery:
    """Jobs one after another, each of which loses its worker in the middle of `submit`."""

    def __init__(self, bench: Bench, ml: StallingMl) -> None:
        self.bench, self.ml = bench, ml

    def after(self, kill: Callable[[UUID], None]) -> tuple[float, float]:
        """Seconds from the kill until the step is done anew, and until the job has succeeded."""
        self.ml.resume.clear()
        (job_id,) = self.bench.prepare(1)
        self.bench.dispatch.publish(due(job_id))
        self.ml.submitted_at(job_id, 1)
        began = time.monotonic()
        kill(job_id)
        again = self.ml.submitted_at(job_id, 2) - began
        self.ml.resume.set()
        while self._status(job_id) == "processing":
            time.sleep(0.002)
        if self._status(job_id) != "succeeded":
            raise RuntimeError(f"job {job_id} ended as {self._status(job_id)}")
        return again, time.monotonic() - began

    def _status(self, job_id: UUID) -> str:
        ((status,),) = self.bench.rows.execute("SELECT status FROM jobs WHERE id = %s", [job_id]).fetchall()
        return str(status)

    def kill_process(self, job_id: UUID) -> None:
        query = "SELECT claimed_by FROM jobs WHERE id = %s AND claim IS NOT NULL"
        ((holder,),) = self.bench.rows.execute(query, [job_id]).fetchall()
        os.kill(int(holder.rpartition(":")[2]), signal.SIGKILL)

    def kill_group(self, _: UUID) -> None:
        # stopped and started, not left to the supervisor: that waits longer after each death
        worker = self.bench.stack.processes["worker"]
        program = worker.program
        worker.program = replace(program, stop_signal=signal.SIGKILL)
        worker.stop()
        worker.program = program
        time.sleep(RESTART_SECONDS)
        worker.start()


def recover(bench: Bench, ml: StallingMl, runs: int) -> list[Report]:
    recovery = Recovery(bench, ml)
    reports: list[Report] = []
    for name, kill in {"process": recovery.kill_process, "group": recovery.kill_group}.items():
        found = [recovery.after(kill) for _ in range(runs)]
        report = Times(f"recovery-{name}", "s", "2, at most 10", "lower", runs=[again for again, _ in found])
        report.extra = {"until_the_job_ended": round(statistics.median(end for _, end in found), 2)}
        reports.append(report)
    return reports


class Rebuild:
    """Queued jobs, a broker that is emptied again and again, and nobody who takes anything out of it."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        from storage import dispatch
        from workers import jobs as engine_jobs

        self.jobs, self.bench, self.sweep = jobs, bench, engine_jobs.sweep
        bench.rows.execute("DELETE FROM jobs")
        bench.prepare(jobs)
        self.noop = dispatch.broker.task(name="benchmarks.noop")(_nothing)

    def ours(self) -> Run:
        self.bench.redis.flushall()
        self.bench.rows.execute("""
            UPDATE jobs SET published_at = now() - interval '1 minute', publishes = 1,
                republish_at = now() + interval '1 hour'""")
        self.bench.rows.execute("VACUUM ANALYZE jobs")
        run = self._timed(self.sweep)
        self._check_queue()
        return run

    def baseline(self) -> Run:
        self.bench.redis.flushall()

        def publish() -> None:
            for number in range(self.jobs):
                self.noop.apply_async(args=(str(number),), queue="io")

        run = self._timed(publish)
        self._check_queue()
        return run

    def _timed(self, publish: Callable[[], object]) -> Run:
        began, cpu = time.perf_counter(), time.process_time()
        publish()
        seconds = time.perf_counter() - began
        return Run(value=self.jobs / seconds, cpu_seconds=time.process_time() - cpu, units=self.jobs)

    def _check_queue(self) -> None:
        # a queue is a list for each priority
        found = sum(int(self.bench.redis.llen(name)) for name in self.bench.redis.scan_iter("io*"))
        if found != self.jobs:
            raise RuntimeError(f"{found} messages wait, not {self.jobs}")


def _nothing(job_id: str) -> None:
    """The baseline's task; nobody runs it."""


def rebuild(bench: Bench, pairs: int, jobs: int) -> Report:
    house = Rebuild(bench, jobs)
    report = Report("rebuild", "jobs/s", "2000 jobs/s", "higher", extra={"jobs": jobs})
    report.pairs = alternate(pairs, house.ours, house.baseline)
    return report


def main(runs: int = 7, pairs: int = 7, jobs: int = 5000) -> list[Report]:
    """Measure; about three minutes."""
    with StallingMl() as ml:
        env = {"ML_SERVICE_URL": ml.url, "ML_SERVICE_TOKEN": TOKEN, "LOG_LEVEL": "warning"}
        with running(only=PROCESSES, env=env) as stack, settings_of({**stack.env, "LOG_LEVEL": "warning"}):
            bench = Bench(stack, jobs)
            reports = recover(bench, ml, runs)
            for name in PROCESSES:
                stack.processes[name].stop()
            logs.configure(settings())
            reports.append(rebuild(bench, pairs, jobs))
            bench.rows.close()
    for report in reports:
        report.show()
    return reports


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="kills of each kind")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=5000)
    options = parser.parse_args()
    main(options.runs, options.pairs, options.jobs)

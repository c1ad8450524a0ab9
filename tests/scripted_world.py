"""Everything around the engine, as one object that a test moves: broker, workers, time, and the jobs themselves."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError

from domain.errors.inference import MlUnavailable
from domain.errors.jobs import StepFailed
from domain.pipelines import Done, Failed, Later, Outcome, ResultFile, Wait
from storage import circuits, dispatch
from storage.database import autocommit, transaction
from storage.jobs.sweep import Due
from tests.job_promises import PIPELINES, Jobs, Known
from tests.scripted_workers import Died, Message, StillHeartbeat, Worker, die, go_on
from workers import holders, jobs

WORKERS = 3
LEASE = 20.0  # seconds; an example does not take so long, so that it only runs out when time is made to pass
ROUND_SECONDS, ROUNDS = 45.0, 40  # longer than a lease, a retry and a redispatch

# The ways a step may end, where its worker may come to rest on the way, and what may happen to its job before.
HOWS = ("done", "result", "wait") * 3 + ("later", "circuit", "retry", "busy", "fail", "bug")
STOPS = ("",) * 8 + ("outcome.before", "effects.written", "outcome.committed", "outcome.announced")
STOPS += ("publish.before", "publish.after")
MEANWHILE = ("", "", "", "cancelled", "told well", "told well", "told badly", "frozen")


class World:
    """Three workers, a broker that may lose or refuse what it is given, and a clock."""

    def __init__(self, heartbeat: StillHeartbeat, patch: pytest.MonkeyPatch) -> None:
        self.jobs = Jobs()
        self.messages: list[Message] = []
        self.refuses = 0  # so many messages, from now on
        self.heartbeat, self._patch = heartbeat, patch
        self._gone: set[str] = set()
        self._made = 0
        self.workers = [self._new_worker() for _ in range(WORKERS)]
        patch.setattr(dispatch.broker, "send_task", self._send_task)
        patch.setattr(dispatch, "idle_tasks", self._idle_tasks)
        patch.setattr(holders, "is_gone", self._gone.__contains__)

    # ------------------------------------------------------------ the broker

    def _send_task(self, name: str, *, args: Any, chain: Any = None, **_: object) -> None:
        if self.refuses:
            self.refuses -= 1
            raise OperationalError("the broker is away")
        self.messages.append(Message.sent(name, args[0], chain))

    def _idle_tasks(self) -> list[str]:
        queues = {PIPELINES[one.kind].step(one.step).queue for one in self.messages}
        steps = [(kind, step) for kind, pipeline in PIPELINES.items() for step in pipeline.steps]
        return [] if self.refuses else [f"{kind}.{step.name}" for kind, step in steps if step.queue not in queues]

    def message(self, index: int, *, stays: bool = False) -> Message:
        """Take one out; when it stays, it will come again."""
        # by the job's age: the rows of a batch come from Postgres in any order
        found = sorted(self.messages, key=lambda message: message.job_id)[index % len(self.messages)]
        if not stays:
            self.messages.remove(found)
        return found

    def publish(self, due: Due | None, *, published: bool) -> None:
        """What follows a commit, unless the process died in between."""
        if due is not None and published:
            dispatch.publish_or_leave_to_sweep(due)

    def job(self, index: int) -> Known | None:
        """One of all, and more often one that has not ended, or that a worker is at."""
        busy = {worker.job_id for worker in self.busy}
        choice = [job for job in self.unfinished if job.id in busy] + self.unfinished + self.jobs.known
        return choice[index % len(choice)] if choice else None

    @property
    def unfinished(self) -> list[Known]:
        return [job for job in self.jobs.known if not job.final]

    # ------------------------------------------------------------ workers

    def _new_worker(self) -> Worker:
        self._made += 1
        return Worker(f"w{self._made}", PIPELINES, self.messages.append)

    def at(self, *places: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.place in places]

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.place]

    def in_step(self, index: int) -> Worker | None:
        workers = self.at("step")
        return workers[index % len(workers)] if workers else None

    def at_rest(self, index: int) -> Worker | None:
        return self.busy[index % len(self.busy)] if self.busy else None

    def take(self, job_id: UUID) -> Worker | None:
        """Have an idle worker do the job's oldest message, where there are both."""
        for worker, message in zip(self.at(""), [one for one in self.messages if one.job_id == job_id], strict=False):
            self.messages.remove(message)
            worker.take(message)
            return worker
        return None

    def end(self, worker: Worker, how: Callable[[], None], *, known: bool) -> None:
        """Another process takes its place; ``known``: the sweep can tell that it is gone."""
        worker.stops_at = ""
        worker.order(how)
        self.jobs.dead.add(worker.name)
        if known:
            self._gone.add(worker.name)
        self.workers[self.workers.index(worker)] = self._new_worker()

    def finish(self, worker: Worker) -> None:
        """Let it do what it is at, and whatever it goes straight on to."""
        worker.stops_at = ""
        while worker.place:
            self.go_on(worker)

    def go_on(self, worker: Worker) -> None:
        worker.order((lambda: outcome(worker, "done")) if worker.place == "step" else go_on)

    def freeze(self, frozen: Worker) -> None:
        """It does not beat, its lease runs out, and its step is given to another."""
        self.jobs.age(LEASE)
        for worker in self.busy:
            if worker is not frozen:
                self.heartbeat.beat(worker, LEASE)
        self.sweep()
        self.take(frozen.job_id)

    # ------------------------------------------------------------ the job's owner and the other side

    def happen_meanwhile(self, worker: Worker, what: str) -> None:
        job = next((job for job in self.jobs.known if job.id == worker.job_id), None)
        if what == "frozen":
            self.freeze(worker)
        elif what == "cancelled" and job:
            self.cancel(job)
        elif what and job:
            for _ in range(2):  # it says everything twice
                self.signal(job, well=what == "told well", published=True)

    def cancel(self, job: Known) -> None:
        if owner := self.jobs.cancel(job):
            dispatch.admit(owner)

    def signal(self, job: Known, *, well: bool, published: bool) -> None:
        due, owner = self.jobs.signal(job, well=well)
        self.publish(due, published=published)
        if owner and published:
            dispatch.admit(owner)

    # ------------------------------------------------------------ time

    def sweep(self, *, dies: bool = False) -> None:
        """``dies``: between marking jobs as published and sending them."""

        def reached(*_: object) -> None:
            if dies:
                die()

        self._patch.setattr(jobs, "reached", reached)
        with suppress(Died):
            jobs.sweep()

    def check(self) -> None:
        self.jobs.check({worker.name: worker.job_id for worker in self.busy})

    def come_to_the_end(self) -> None:
        """From here on nothing goes wrong any more, and every job that has its file must end."""
        self.refuses = 0
        for worker in self.workers:
            self.finish(worker)
        for _ in range(ROUNDS):
            self.check()
            if not self.jobs.unfinished():
                return
            self.jobs.age(ROUND_SECONDS)
            self.sweep()
            while self.messages:
                self.workers[0].take(self.messages.pop(0))
                self.finish(self.workers[0])
        raise AssertionError(f"never ended: {self.jobs.unfinished()}")

    def close(self) -> None:
        for worker in self.workers:
            worker.stops_at = ""
            while worker.place:
                worker.order(die)
        self.jobs.clear()


def outcome(worker: Worker, how: str) -> Outcome:
    """How a step may end; a step that cannot wait is done instead."""
    job, effects = worker.job, (worker.effect,)
    step = PIPELINES[job.kind].step(job.step)
    match how:
        case "wait" if (step.overdue or step.aside) and job.signal is None:
            return Wait(seconds=60, effects=effects)
        case "later":
            return Later(seconds=10, message="not now", error=MlUnavailable(reason="status 503"))
        case "circuit":
            return Later(seconds=1000, message="not now", circuit="ml")
        case "retry":
            raise MlUnavailable(reason="status 500")
        case "busy":
            raise MlUnavailable(reason="status 429", retry_after=10)
        case "fail":
            return Failed(error=StepFailed())
        case "bug":
            raise ValueError("a bug of the step")
        case "result":
            return Done(effects=effects, result=ResultFile(key=f"results/{job.id}/1", name="x", size=1))
    with transaction() as connection:
        circuits.succeeded(connection, "ml", job.id)
    return Done(effects=effects)


def circuit_fails(job_id: UUID) -> None:
    """The neighbour of all jobs fails; the second time in a row nobody is let through for a while."""
    with autocommit() as connection:
        circuits.failed(connection, "ml", job_id, threshold=2, seconds=15)

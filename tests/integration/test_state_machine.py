"""No sequence of orders, deliveries, crashes and signals leaves what the engine promises.

A state machine (hypothesis) does to real jobs in a real Postgres whatever clients, workers, the ML service, the broker
and time can do to them, in any order, and looks at everything after every move. In the end nothing goes wrong any more,
and every job that has its file must come to its end by sweeps and deliveries alone.
``HYPOTHESIS_PROFILE=long`` looks further, and elsewhere each time.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
import structlog
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from kombu.exceptions import OperationalError
from sqlalchemy import text

from domain.errors import MlUnavailable, StepFailed
from domain.jobs import Priority
from domain.pipelines import Done, Failed, Later, Outcome, ResultFile, Wait
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import circuits, dispatch
from storage.configuration import settings
from storage.database import autocommit, transaction
from tests import scripted_workers as scripted
from tests.integration.promises import KINDS, OWNER_LIMIT, PIPELINES, Jobs
from tests.scripted_workers import Message, Worker, die, go_on, shut_down
from workers import holders
from workers import jobs as engine_jobs

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
PROFILE = profile(
    max_examples=3000 if LONG else 60,
    stateful_step_count=80 if LONG else 40,
    derandomize=not LONG,
    print_blob=LONG,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
WORKERS, MOST_JOBS = 3, 6
LEASE = 20.0  # seconds; nothing here takes so long, so that only a test makes it run out
ROUND_SECONDS, ROUNDS = 45.0, 40  # longer than a lease, a retry and a redispatch

_index = st.integers(0, 30)  # of whatever there is to choose from
_often = st.sampled_from([True, True, True, False])


class Life(RuleBasedStateMachine):
    """Everything that can happen to jobs."""

    heartbeat: ClassVar[scripted.StillHeartbeat]
    patch: ClassVar[pytest.MonkeyPatch]

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.messages: list[Message] = []
        self.refuses = False
        self.gone: set[str] = set()
        self.made = 0
        self.workers = [self.new_worker() for _ in range(WORKERS)]
        self.patch.setattr(dispatch.broker, "send_task", self.send_task)
        self.patch.setattr(dispatch, "idle_tasks", self.idle_tasks)
        self.patch.setattr(holders, "is_gone", self.gone.__contains__)

    # ------------------------------------------------------------ the world around the engine

    def new_worker(self) -> Worker:
        self.made += 1
        return Worker(f"w{self.made}", PIPELINES, self.messages.append)

    def send_task(self, name: str, *, args: Any, chain: Any = None, **_: object) -> None:
        if self.refuses:
            raise OperationalError("the broker is away")
        self.messages.append(Message.sent(name, args[0], chain))

    def idle_tasks(self) -> list[str]:
        queues = {PIPELINES[one.kind].step(one.step).queue for one in self.messages}
        steps = [(kind, step) for kind, pipeline in PIPELINES.items() for step in pipeline.steps]
        return [] if self.refuses else [f"{kind}.{step.name}" for kind, step in steps if step.queue not in queues]

    def at(self, *places: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.place in places]

    def resting(self, index: int) -> Worker:
        busy = [worker for worker in self.workers if worker.place]
        return busy[index % len(busy)]

    def busy(self) -> bool:
        return any(worker.place for worker in self.workers)

    def in_step(self) -> bool:
        return bool(self.at("step"))

    def has_jobs(self) -> bool:
        return bool(self.jobs.known)

    def can_deliver(self) -> bool:
        return bool(self.messages and self.at(""))

    # ------------------------------------------------------------ clients

    @precondition(lambda self: len(self.jobs.known) < MOST_JOBS)
    @rule(owner=_index, kind=st.sampled_from(KINDS), file=_often, rank=st.sampled_from(Priority), published=_often)
    def order(self, owner: int, kind: str, rank: Priority, *, file: bool, published: bool) -> None:
        self.go(self.jobs.order(owner, kind, rank, file=file), published=published)

    @precondition(has_jobs)
    @rule(index=_index, published=_often)
    def attach(self, index: int, *, published: bool) -> None:
        self.go(self.jobs.attach(index), published=published)

    @precondition(has_jobs)
    @rule(index=_index, published=_often)
    def run_again(self, index: int, *, published: bool) -> None:
        self.go(self.jobs.run_again(index), published=published)

    @precondition(has_jobs)
    @rule(index=_index)
    def cancel(self, index: int) -> None:
        if owner := self.jobs.cancel(index):
            dispatch.admit(owner)

    @precondition(has_jobs)
    @rule(index=_index)
    def delete(self, index: int) -> None:
        self.jobs.delete(index)

    def go(self, due: Any, *, published: bool) -> None:
        """What follows a commit, unless the process died in between."""
        if due is not None and published:
            dispatch.publish_or_leave_to_sweep(due)

    # ------------------------------------------------------------ broker and deliveries

    @precondition(can_deliver)
    @rule(index=_index, worker=_index, again=st.booleans(), stop=st.sampled_from(["", "", "claimed"]))
    def deliver(self, index: int, worker: int, stop: str, *, again: bool) -> None:
        """Any of the messages, and it may come again."""
        message = self.messages[index % len(self.messages)]
        if not again:
            self.messages.remove(message)
        idle = self.at("")
        idle[worker % len(idle)].stops_at = {stop}
        idle[worker % len(idle)].take(message)

    @precondition(can_deliver)
    @rule(index=_index, times=st.integers(1, 4))
    def work(self, index: int, times: int) -> None:
        """What happens nearly always: a message is delivered, and its steps are done."""
        worker = self.at("")[0]
        for _ in range(times):
            if self.messages:
                worker.take(self.messages.pop(index % len(self.messages)))
                self.finish_quietly(worker)

    @precondition(lambda self: self.has_jobs() and self.at(""))
    @rule(index=_index, step=_index)
    def deliver_unsent(self, index: int, step: int) -> None:
        """A message out of nowhere: of any step, done long ago or not begun."""
        job = self.jobs.pick(index)
        steps = PIPELINES[job.kind].steps
        self.at("")[0].take(Message(job.id, job.kind, steps[step % len(steps)].name))

    @precondition(lambda self: self.messages)
    @rule(index=_index)
    def lose_message(self, index: int) -> None:
        self.messages.pop(index % len(self.messages))

    @rule()
    def flush_broker(self) -> None:
        self.messages.clear()

    @rule()
    def broker_goes_or_comes(self) -> None:
        self.refuses = not self.refuses

    # ------------------------------------------------------------ workers

    @precondition(in_step)
    @rule(index=_index, percent=st.integers(0, 100))
    def progress(self, index: int, percent: int) -> None:
        workers = self.at("step")
        worker = workers[index % len(workers)]
        worker.order(lambda: worker.context.progress(percent, 100))

    @precondition(in_step)
    @rule(
        index=_index,
        how=st.sampled_from(["done", "result", "wait", "wait", "later", "circuit", "retry", "busy", "fail", "bug"]),
        stop=st.sampled_from(["", "", "effects", "ended"]),
    )
    def finish(self, index: int, how: str, stop: str) -> None:
        workers = self.at("step")
        worker = workers[index % len(workers)]
        worker.stops_at = {stop}
        worker.order(lambda: outcome(worker, how))

    @precondition(busy)
    @rule(index=_index)
    def wake_up(self, index: int) -> None:
        """However long it was away."""
        worker = self.resting(index)
        worker.order((lambda: outcome(worker, "done")) if worker.place == "step" else go_on)

    @precondition(busy)
    @rule(index=_index, known=st.booleans())
    def crash(self, index: int, *, known: bool) -> None:
        self.end(self.resting(index), die, known=known)

    @precondition(in_step)
    @rule(index=_index)
    def shut_down(self, index: int) -> None:
        workers = self.at("step")
        self.end(workers[index % len(workers)], shut_down, known=False)

    @precondition(in_step)
    @rule(index=_index)
    def run_too_long(self, index: int) -> None:
        workers = self.at("step")
        worker = workers[index % len(workers)]
        self.heartbeat.overrun(worker)
        self.end(worker, die, known=True)

    @precondition(busy)
    @rule(index=_index)
    def beat(self, index: int) -> None:
        self.heartbeat.beat(self.resting(index), LEASE)

    def end(self, worker: Worker, how: Callable[[], None], *, known: bool) -> None:
        """Another process takes its place."""
        worker.stops_at.clear()
        worker.order(how)
        self.jobs.dead.add(worker.name)
        if known:
            self.gone.add(worker.name)
        self.workers[self.workers.index(worker)] = self.new_worker()

    # ------------------------------------------------------------ time, sweeps, signals

    @rule(seconds=st.sampled_from([4.0, 25.0, 70.0, 4000.0, 90_000.0]), beating=st.booleans())
    def time_passes(self, seconds: float, *, beating: bool) -> None:
        self.jobs.age(seconds)
        for worker in self.workers if beating else ():
            self.heartbeat.beat(worker, LEASE)

    @rule()
    def sweep(self) -> None:
        engine_jobs.sweep()

    @rule(times=st.integers(1, 2), seconds=st.sampled_from([0.0, 25.0]))
    def age_and_sweep(self, times: int, seconds: float) -> None:
        for _ in range(times):
            self.jobs.age(seconds)
            engine_jobs.sweep()

    @precondition(has_jobs)
    @rule(index=_index, well=_often, published=_often)
    def signal(self, index: int, *, well: bool, published: bool) -> None:
        due, owner = self.jobs.signal(index, well=well)
        self.go(due, published=published)
        if owner and published:
            dispatch.admit(owner)

    @precondition(has_jobs)
    @rule(index=_index, percent=st.integers(10, 60))
    def remote_progress(self, index: int, percent: int) -> None:
        self.jobs.remote_progress(index, percent)

    @precondition(has_jobs)
    @rule(index=_index)
    def neighbour_fails(self, index: int) -> None:
        with autocommit() as connection:
            circuits.failed(connection, "ml", self.jobs.pick(index).id, threshold=2, seconds=15)

    # ------------------------------------------------------------ what must hold

    @invariant()
    def every_promise_holds(self) -> None:
        self.jobs.check({worker.name: worker.job.id for worker in self.workers if worker.place})

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else it would hide what was found
                self.come_to_the_end()
        finally:
            for worker in self.workers:
                worker.stops_at.clear()
                while worker.place:
                    worker.order(die)
            self.jobs.clear()

    def come_to_the_end(self) -> None:
        """From here on nothing goes wrong any more."""
        self.refuses = False
        for worker in self.workers:
            self.finish_quietly(worker)
        for _ in range(ROUNDS):
            self.jobs.check({})
            if not self.jobs.unfinished():
                return
            self.jobs.age(ROUND_SECONDS)
            engine_jobs.sweep()
            while self.messages:
                self.workers[0].take(self.messages.pop(0))
                self.finish_quietly(self.workers[0])
        raise AssertionError(f"never ended: {self.jobs.unfinished()}")

    def finish_quietly(self, worker: Worker) -> None:
        worker.stops_at.clear()
        while worker.place:
            worker.order((lambda: outcome(worker, "done")) if worker.place == "step" else go_on)


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


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNER_RUNNING_JOBS", str(OWNER_LIMIT))
        patch.setenv("LEASE_SECONDS", str(LEASE))
        settings.cache_clear()
        upgrade()
        with autocommit() as connection:
            connection.execute(text(scripted.EFFECTS))
        patch.setattr(dispatch, "pipelines", lambda: PIPELINES)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        Life.heartbeat, Life.patch = scripted.install(patch), patch
        yield
        structlog.reset_defaults()


@pytest.mark.timeout(0 if LONG else 120)
def test_no_sequence_of_events_leaves_what_is_promised() -> None:
    run_state_machine_as_test(Life, settings=PROFILE)

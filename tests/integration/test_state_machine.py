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
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import text

from domain.jobs import Priority
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import dispatch
from storage.configuration import settings
from storage.database import autocommit
from tests import scripted_workers
from tests.job_promises import KINDS, OWNER_LIMIT, PIPELINES
from tests.scripted_workers import Message, StillHeartbeat, die, shut_down
from tests.scripted_world import HOWS, LEASE, MEANWHILE, STOPS, World, circuit_fails, outcome
from workers import jobs as engine_jobs

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
PROFILE = profile(
    max_examples=2000 if LONG else 24,
    stateful_step_count=150 if LONG else 100,
    derandomize=not LONG,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
MOST_JOBS = 4  # that have not ended

_index = st.integers(0, 30)  # of whatever there is to choose from
_owner = st.sampled_from([0, 0, 0, 1])
_often, _seldom = st.sampled_from([True, True, True, False]), st.sampled_from([False, False, False, True])


ACTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {}  # what may happen, and with which values
WEIGHED: list[str] = []


def act(weight: int = 1, **values: st.SearchStrategy[Any]) -> Any:
    """Something that may happen, more often than others by its weight. Where it cannot, nothing does.

    Not a rule of its own: hypothesis leaves out half of the rules in each example, and the ordinary way of a job needs
    nearly all of them. What is drawn depends on nothing but earlier draws, so that an example can always be replayed.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        ACTS[function.__name__] = values
        WEIGHED.extend([function.__name__] * weight)
        return function

    return register


class Life(RuleBasedStateMachine):
    """Everything that can happen to jobs."""

    heartbeat: ClassVar[StillHeartbeat]
    patch: ClassVar[pytest.MonkeyPatch]

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.heartbeat, self.patch)
        self.jobs = self.world.jobs

    @initialize(orders=st.lists(st.tuples(_owner, st.sampled_from(KINDS)), min_size=2, max_size=4))
    def begin(self, orders: list[tuple[int, str]]) -> None:
        for owner, kind in orders:
            self.order(owner, kind, Priority.NORMAL, file=True, published=True)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(WEIGHED))
        getattr(self, what)(**data.draw(st.fixed_dictionaries(ACTS[what])))
        self.world.check()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else it would hide what was found
                self.world.come_to_the_end()
        finally:
            self.world.close()

    # ------------------------------------------------------------ clients

    @act(
        3, owner=_index, kind=st.sampled_from(KINDS), priority=st.sampled_from(Priority), file=_often, published=_often
    )
    def order(self, owner: int, kind: str, priority: Priority, *, file: bool, published: bool) -> None:
        if len(self.world.unfinished) < MOST_JOBS:
            self.world.publish(self.jobs.order(owner, kind, priority, file=file), published=published)

    @act(index=_index, published=_often)
    def attach(self, index: int, *, published: bool) -> None:
        if job := self.world.job(index):
            self.world.publish(self.jobs.attach(job), published=published)

    @act(index=_index, published=_often)
    def run_again(self, index: int, *, published: bool) -> None:
        if job := self.world.job(index):
            self.world.publish(self.jobs.run_again(job), published=published)

    @act(2, index=_index)
    def cancel(self, index: int) -> None:
        if job := self.world.job(index):
            self.world.cancel(job)

    @act(index=_index)
    def delete(self, index: int) -> None:
        if job := self.world.job(index):
            self.jobs.delete(job)

    # ------------------------------------------------------------ broker and deliveries

    @act(10, index=_index, worker=_index, again=st.booleans(), stop=st.sampled_from(["", "", "", "step.claimed"]))
    def deliver(self, index: int, worker: int, stop: str, *, again: bool) -> None:
        """Any of the messages, and it may come again."""
        idle = self.world.at("")
        if not self.world.unfinished:
            self.order(index, KINDS[worker % len(KINDS)], Priority.NORMAL, file=True, published=True)
        elif idle and not self.world.messages:
            self.sweep(25.0, dies=False)
        if idle and self.world.messages:
            chosen = idle[worker % len(idle)]
            chosen.stops_at = stop
            chosen.take(self.world.message(index, stays=again))

    @act(2, index=_index, times=st.integers(1, 3))
    def work(self, index: int, times: int) -> None:
        """What happens nearly always: a message is delivered, and its steps are done."""
        for worker in self.world.at("")[:1] * times:
            if self.world.messages:
                worker.take(self.world.message(index))
                self.world.finish(worker)

    @act(index=_index, step=_index)
    def deliver_unsent(self, index: int, step: int) -> None:
        """A message out of nowhere: of any step, done long ago or not begun."""
        idle = self.world.at("")
        if idle and (job := self.world.job(index)):
            steps = PIPELINES[job.kind].steps
            idle[0].take(Message(job.id, job.kind, steps[step % len(steps)].name))

    @act(index=_index)
    def lose_message(self, index: int) -> None:
        if self.world.messages:
            self.world.message(index)

    @act()
    def flush_broker(self) -> None:
        self.world.messages.clear()

    @act(times=st.integers(1, 4))
    def broker_is_away(self, times: int) -> None:
        self.world.refuses = times

    # ------------------------------------------------------------ workers

    @act(index=_index, percent=st.integers(0, 100))
    def progress(self, index: int, percent: int) -> None:
        worker = self.world.in_step(index)
        if worker:
            context = worker.context
            worker.order(lambda: context.progress(percent, 100))

    @act(14, index=_index, how=st.sampled_from(HOWS), meanwhile=st.sampled_from(MEANWHILE), stop=st.sampled_from(STOPS))
    def finish(self, index: int, how: str, meanwhile: str, stop: str) -> None:
        """Its step ends, after what happened to its job meanwhile."""
        worker = self.world.in_step(index)
        if worker is None:
            for frozen in self.world.busy:
                self.world.go_on(frozen)
            self.deliver(index, index, "", again=False)
            worker = self.world.in_step(0)
        if worker is not None:
            chosen = worker
            self.world.happen_meanwhile(worker, meanwhile)
            worker.stops_at = stop
            worker.order(lambda: outcome(chosen, how))

    @act(4, index=_index)
    def wake_up(self, index: int) -> None:
        """However long it was away."""
        if worker := self.world.at_rest(index):
            self.world.go_on(worker)

    @act(2, index=_index)
    def freeze(self, index: int) -> None:
        if worker := self.world.at_rest(index):
            self.world.freeze(worker)

    @act(3, index=_index, known=st.booleans())
    def crash(self, index: int, *, known: bool) -> None:
        if worker := self.world.at_rest(index):
            self.world.end(worker, die, known=known)

    @act(index=_index)
    def shut_down(self, index: int) -> None:
        if worker := self.world.at_rest(index):
            self.world.end(worker, shut_down, known=False)

    @act(index=_index)
    def run_too_long(self, index: int) -> None:
        worker = self.world.in_step(index)
        if worker:
            self.heartbeat.overrun(worker)
            self.world.end(worker, die, known=True)

    @act(index=_index, times=st.integers(2, 4))
    def kill_again_and_again(self, index: int, times: int) -> None:
        """A step that takes its worker with it, wherever it is begun."""
        job = self.world.job(index)
        for _ in range(times if job else 0):
            worker = self.world.take(job.id) if job else None
            if worker and worker.place:
                self.world.end(worker, die, known=True)
            self.world.sweep()

    @act(2, index=_index)
    def beat(self, index: int) -> None:
        if worker := self.world.at_rest(index):
            self.heartbeat.beat(worker, LEASE)

    # ------------------------------------------------------------ time, sweeps, signals

    @act(2, seconds=st.sampled_from([5.0, 25.0, 75.0, 4000.0, 90_000.0]), beating=st.booleans())
    def time_passes(self, seconds: float, *, beating: bool) -> None:
        self.jobs.age(seconds)
        for worker in self.world.workers if beating else ():
            self.heartbeat.beat(worker, LEASE)

    @act(5, seconds=st.sampled_from([0.0, 0.0, 25.0, 75.0]), dies=_seldom)
    def sweep(self, seconds: float, *, dies: bool) -> None:
        self.jobs.age(seconds)
        self.world.sweep(dies=dies)

    @act(4, index=_index, times=st.integers(1, 2), well=_often, published=_often)
    def signal(self, index: int, times: int, *, well: bool, published: bool) -> None:
        if job := self.world.job(index):
            for _ in range(times):
                self.world.signal(job, well=well, published=published)

    @act(index=_index, percent=st.integers(10, 60))
    def remote_progress(self, index: int, percent: int) -> None:
        if job := self.world.job(index):
            self.jobs.remote_progress(job, percent)

    @act(index=_index)
    def neighbour_fails(self, index: int) -> None:
        if job := self.world.job(index):
            circuit_fails(job.id)


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNER_RUNNING_JOBS", str(OWNER_LIMIT))
        patch.setenv("LEASE_SECONDS", str(LEASE))
        settings.cache_clear()
        upgrade()
        with autocommit() as connection:
            connection.execute(text(scripted_workers.EFFECTS))
            # nothing here is about losing power, and a commit that waits for the disk is most of the time it takes
            connection.execute(text("ALTER SYSTEM SET synchronous_commit = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        patch.setattr(dispatch, "pipelines", lambda: PIPELINES)
        patch.setattr(engine_jobs, "PATIENCE_SECONDS", LEASE)  # an example takes some seconds itself
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        Life.heartbeat, Life.patch = scripted_workers.install(patch), patch
        yield
        structlog.reset_defaults()


@pytest.mark.timeout(0 if LONG else 600)  # half a minute, but what is found takes its time to be made short
def test_no_sequence_of_events_leaves_what_is_promised() -> None:
    run_state_machine_as_test(Life, settings=PROFILE)

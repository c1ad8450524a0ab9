"""Worker processes that stop wherever a test wants to act: the real engine, one thread for each, one moving at a time.

A worker comes to rest in its step and, when it was asked to, at a failpoint: in the open transaction of the step's
effects, after a commit, before a message is sent. A test then gives it an order: go on, fail, die. Whatever else
happens meanwhile finds it as a process that is busy, frozen or slow. Nothing depends on how threads are scheduled.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from domain.pipelines import Context, JobInStep, Outcome, Pipeline
from storage import dispatch
from workers import engine as engine_module
from workers import leases
from workers.engine import Engine
from workers.leases import Hold

STUCK_SECONDS = 30.0

EFFECTS = """CREATE TABLE effects_of_steps (job_id uuid NOT NULL, step text NOT NULL, worker text NOT NULL)"""
_effect = text("INSERT INTO effects_of_steps (job_id, step, worker) VALUES (:job_id, :step, :worker)")

Order = Callable[[], Outcome | None]  # at rest in its step, None leaves the worker there
_current = threading.local()


class Died(BaseException):
    """The process is gone: nothing of it runs any more, and what it had in memory is forgotten."""


def go_on() -> None:
    """The order to a worker that rests outside of a step."""


def die() -> None:
    raise Died


def shut_down() -> None:
    raise SystemExit


@dataclass
class Message:
    """What the broker holds: a step to do, and the steps to be sent after it, the last one first."""

    job_id: UUID
    kind: str
    step: str
    chain: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def sent(cls, task: str, job_id: str, chain: Iterable[dict[str, Any]] | None) -> "Message":
        kind, _, step = task.partition(".")
        return cls(UUID(job_id), kind, step, list(chain or []))


class StillHeartbeat(leases.Heartbeat):
    """Beats when a test says so."""

    def keep(self, hold: Hold) -> None:
        self._holds[hold.claim.token] = hold

    def beat(self, worker: "Worker", lease: float) -> None:
        if holds := self._of(worker):
            self._extend(holds, lease)

    def overrun(self, worker: "Worker") -> None:
        """As if the worker's step had run for too long."""
        for hold in self._of(worker).values():
            self._stop_hanging(hold)

    def _of(self, worker: "Worker") -> dict[UUID, Hold]:
        return {token: hold for token, hold in self._holds.items() if hold.claim.worker == worker.name}


class Worker:
    """One process of a worker's pool."""

    def __init__(self, name: str, pipelines: dict[str, Pipeline], send: Callable[[Message], None]) -> None:
        self.name = name
        self.job_id: UUID  # and, once it has come to a step:
        self.job: JobInStep
        self.context: Context
        self.place = ""  # where it rests: in a `step` or at a failpoint; empty when it has nothing to do
        self.stops_at = ""  # the next failpoint to rest at
        self._engine = Engine(pipelines, dict.fromkeys(_names(pipelines), self._step), worker=name)
        self._send = send
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._rests: SimpleQueue[BaseException | None] = SimpleQueue()

    def take(self, message: Message) -> None:
        """Have it do the message; it is at rest again when this returns."""
        self.job_id = message.job_id
        threading.Thread(target=self._run, args=(message,), daemon=True).start()
        self._wait()

    def order(self, order: Order) -> None:
        """Have it do this where it rests; it is at rest again when this returns."""
        self._orders.put(order)
        self._wait()

    def effect(self, connection: Connection) -> None:
        """What each step does in the transaction that ends it."""
        connection.execute(_effect, {"job_id": self.job.id, "step": self.job.step, "worker": self.name})

    def reached(self, place: str) -> None:
        if place == self.stops_at:
            self.stops_at = ""
            self._rest(place)

    def _wait(self) -> None:
        if (fault := self._rests.get(timeout=STUCK_SECONDS)) is not None:
            raise AssertionError(f"the engine let {fault!r} through") from fault

    def _run(self, message: Message) -> None:
        _current.worker, fault = self, None
        try:
            self._do(message)
        except (Died, SystemExit):
            pass
        except BaseException as error:
            fault = error
        self.place = ""
        self._rests.put(fault)

    def _do(self, message: Message) -> None:
        """What the task in workers.app and Celery's chain do around the engine."""
        chain = list(message.chain)

        def going_on() -> None:
            if chain:
                chain.pop()

        following = self._engine.run(message.job_id, message.step, going_on)
        if following is not None and chain:
            link = chain.pop()
            self._send(Message.sent(link["task"], str(message.job_id), chain))
        elif following is not None:
            dispatch.publish_or_leave_to_sweep(following)

    def _step(self, job: JobInStep, context: Context) -> Outcome:
        self.job, self.context = job, context
        while True:
            outcome = self._rest("step")
            if outcome is not None:
                return outcome

    def _rest(self, place: str) -> Outcome | None:
        self.place = place
        self._rests.put(None)
        return self._orders.get()()


def _names(pipelines: dict[str, Pipeline]) -> set[str]:
    return {step.name for pipeline in pipelines.values() for step in pipeline.steps}


def install(patch: pytest.MonkeyPatch) -> StillHeartbeat:
    """Make the engine in this process one that comes to rest; answers the heartbeat of all workers."""
    heartbeat = StillHeartbeat()

    def reached(place: str, *about: object) -> None:
        worker = getattr(_current, "worker", None)
        if worker is not None:
            worker.reached(place)

    patch.setattr(engine_module, "reached", reached)
    patch.setattr(dispatch, "reached", reached)
    patch.setattr(leases, "heartbeat", heartbeat)
    patch.setattr(leases, "end_process", go_on)  # the test lets the worker die by itself
    patch.setattr("workers.progress.ANNOUNCE_SECONDS", 0.0)
    patch.setattr("workers.progress.STORE_SECONDS", 0.0)
    return heartbeat

"""Pipelines of steps that do next to nothing, and single jobs of them in this process's engine."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from domain.pipelines import Context, Done, JobInStep, Outcome, Pipeline, Retry, Step, StepFunction
from domain.settings import Settings
from tests import job_rows
from workers.engine import Engine

LEASE = 2.0  # a thread of a busy machine may stand still for the second that its heartbeat leaves


def no_params(ordered: Mapping[str, Any], config: Settings) -> dict[str, Any]:
    return dict(ordered)


def pipeline(*steps: Step) -> Pipeline:
    return Pipeline(name="tiny", steps=steps, read_params=no_params)


QUICK = Retry(attempts=3, base_seconds=0.0, cap_seconds=0.0)
ONE = pipeline(Step(name="a", queue="io", until=100, retry=QUICK))
TWO = pipeline(Step(name="a", queue="io", until=50), Step(name="b", queue="io", until=100))
SHORT = pipeline(Step(name="a", queue="io", until=50), Step(name="b", queue="io", until=100, short=lambda job: True))


class Run:
    """One job of a pipeline, and what became of it."""

    def __init__(self, line: Pipeline, **steps: StepFunction) -> None:
        self.engine = Engine({line.name: line}, steps, worker="tester")
        self.job_id = job_rows.queued("tiny", "a")
        self.went_on = 0

    def step(self, name: str) -> str | None:
        def going_on() -> None:
            self.went_on += 1

        due = self.engine.run(self.job_id, name, going_on)
        return due.step if due else None

    @property
    def row(self) -> dict[str, Any]:
        return job_rows.row(self.job_id)

    @property
    def types(self) -> list[str]:
        return job_rows.types(self.job_id)


def done(job: JobInStep, context: Context) -> Outcome:
    return Done()


def retitle(connection: Connection, job_id: UUID) -> None:
    connection.execute(text("UPDATE jobs SET title = title || '!' WHERE id = :id"), {"id": job_id})


def with_effect(job: JobInStep, context: Context) -> Outcome:
    return Done(effects=(lambda connection: retitle(connection, job.id),))


def failing(error: Exception) -> StepFunction:
    def step(job: JobInStep, context: Context) -> Outcome:
        raise error

    return step


def learns(run_on: Callable[[], None]) -> StepFunction:
    """A step that goes on until a checkpoint ends it."""

    def step(job: JobInStep, context: Context) -> Outcome:
        run_on()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            context.checkpoint()
            time.sleep(0.01)
        raise AssertionError("no checkpoint has ended it")

    return step

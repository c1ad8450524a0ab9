"""The Celery app: tasks and schedule of the capabilities that are switched on, found by their names.

``celery -A workers.app worker -Q io,cpu,mail`` runs steps, ``celery -A workers.app worker -Q default`` the schedule's
tasks, ``celery -A workers.app beat`` sends them.
"""

import os
from collections.abc import Callable
from functools import cache
from uuid import UUID

import structlog
from celery import Task, signals

from domain.modules import enabled, floor
from domain.pipelines import Pipeline, Step, StepFunction
from storage import logs
from storage.configuration import settings
from storage.dispatch import broker as app
from storage.dispatch import pipelines, publish_or_leave_to_sweep, task_name
from workers import memory, ticks
from workers.engine import Engine
from workers.holders import own_name

_floors = floor("workers", enabled(settings().modules))
_steps: dict[str, StepFunction] = {
    name: function for module in _floors for name, function in getattr(module, "steps", {}).items()
}


@cache
def engine() -> Engine:
    """The engine of this process; made after the fork, so that its name is the process's own."""
    return Engine(pipelines(), _steps, worker=own_name())


os.register_at_fork(after_in_child=engine.cache_clear)


def _register_step(pipeline: Pipeline, step: Step) -> None:
    if step.name not in _steps:
        raise LookupError(f"pipeline {pipeline.name!r} has a step {step.name!r}, but no module in workers defines it")

    @app.task(name=task_name(pipeline, step), bind=True)
    def run(self: Task, job_id: str) -> None:
        structlog.contextvars.bind_contextvars(job_id=job_id)

        def going_on() -> None:
            # what is done here needs no message of its own any more
            if self.request.chain:
                self.request.chain.pop()

        following = engine().run(UUID(job_id), step.name, going_on)
        if following is None:
            self.request.chain = None
        elif not self.request.chain:
            # the chain ended where the job could have waited, and it did not have to
            publish_or_leave_to_sweep(following)


def _register_tick(name: str, function: Callable[[], None], every: str, queue: str = "default") -> None:
    seconds: float = getattr(settings(), every)
    # no events: a tick every second would push everything else out of Flower's list
    app.task(name=name, send_events=False)(ticks.once_a_slot(name, function, seconds))
    app.conf.beat_schedule[name] = ticks.entry(name, seconds, queue)


for _pipeline in pipelines().values():
    for _step in _pipeline.steps:
        _register_step(_pipeline, _step)
for _module in _floors:
    for _name, _task in getattr(_module, "tasks", {}).items():  # neither step nor schedule: errands, safe to lose
        app.task(name=_name)(_task)
app.conf.beat_schedule = {}
for _module in _floors:
    for _name, _tick in getattr(_module, "schedule", {}).items():
        _register_tick(_name, *_tick)


@signals.setup_logging.connect(weak=False)
def _configure_logs(**_: object) -> None:
    logs.configure(settings())


@signals.worker_process_init.connect(weak=False)
def _limit_memory(**_: object) -> None:
    memory.limit(settings().step_memory_bytes)


@signals.task_prerun.connect(weak=False)
def _bind_context(task_id: str, task: Task, **_: object) -> None:
    structlog.contextvars.clear_contextvars()
    carried = {"request_id": request_id} if (request_id := task.request.get("request_id")) else {}
    structlog.contextvars.bind_contextvars(task_id=task_id, task=task.name, **carried)


@signals.task_postrun.connect(weak=False)
def _clear_context(**_: object) -> None:
    structlog.contextvars.clear_contextvars()

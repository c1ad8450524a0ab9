"""Publishing: the hint that a job's step can be done now. Postgres knows it anyway, so a lost hint costs only time."""

from collections.abc import Iterable
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from celery import Celery, uuid
from celery.signals import before_task_publish
from kombu.exceptions import OperationalError

from domain.modules import enabled
from domain.pipelines import Pipeline, Step, declared
from storage.configuration import settings
from storage.database import autocommit
from storage.jobs.sweep import unpublished

broker = Celery("millrace")
broker.config_from_object("celeryconfig")

_log = structlog.get_logger()


@cache
def pipelines() -> dict[str, Pipeline]:
    """The pipelines of the capabilities that are switched on, by name."""
    return declared(enabled(settings().modules))


def task_name(pipeline: Pipeline, step: Step) -> str:
    return f"{pipeline.name}.{step.name}"


def publish(job_id: UUID, kind: str, step: str) -> bool:
    """Send the Celery chain from ``step`` to the next one that waits; False when the broker cannot be reached."""
    pipeline = pipelines()[kind]
    first, *rest = pipeline.segment(step)
    try:
        # What `chain(...).apply_async()` puts on the wire, without building it anew for every job: the links of a
        # chain travel as a header of its first message, last link first.
        broker.send_task(
            task_name(pipeline, first),
            args=(str(job_id),),
            queue=first.queue,
            chain=[_link(pipeline, following, job_id) for following in reversed(rest)] or None,
        )
    except (OperationalError, ConnectionError, OSError) as error:
        _log.warning("job_not_published", job_id=str(job_id), step=step, error=str(error))
        return False
    return True


def publish_or_leave_to_sweep(job_id: UUID, kind: str, step: str) -> None:
    """Publish a job whose row is committed; when the broker is away, mark it for the next sweep."""
    if not publish(job_id, kind, step):
        with autocommit() as connection:
            unpublished(connection, [job_id])


def _link(pipeline: Pipeline, step: Step, job_id: UUID) -> dict[str, Any]:
    return {
        "task": task_name(pipeline, step),
        "args": (str(job_id),),
        "kwargs": {},
        "options": {"queue": step.queue, "task_id": uuid()},
        "subtask_type": None,
        "immutable": True,
    }


# What travels with a message so that the lines a request causes in API and workers can be found together.
CARRIED: Iterable[str] = ("request_id",)


@before_task_publish.connect(weak=False)  # type: ignore[untyped-decorator]  # celery has no types
def _carry_context(headers: dict[str, Any], **_: Any) -> None:
    bound = structlog.contextvars.get_contextvars()
    for name in CARRIED:
        if name in bound:
            headers[name] = bound[name]

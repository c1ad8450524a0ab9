"""Publishing: the hint that a job's step can be done now. Postgres knows it anyway, so a lost hint costs only time."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from amqp.exceptions import MessageNacked
from celery import Celery, uuid
from celery.signals import before_task_publish
from kombu.exceptions import BatchPublishError, ChannelError, OperationalError

from domain.modules import enabled
from domain.pipelines import Pipeline, Step, declared
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.failpoints import reached
from storage.jobs import admission
from storage.jobs.sweep import Due, unpublished
from storage.messages import Amqp, time_limit

broker = Celery("millrace", amqp=Amqp)
broker.config_from_object("celeryconfig")

_REFUSED = (OperationalError, OSError, MessageNacked, BatchPublishError)
BATCH = 1000  # commands in one pipeline
KEPT = "millrace:kept"  # in Redis for as long as it forgets nothing

_log = structlog.get_logger()


@cache
def pipelines() -> dict[str, Pipeline]:
    """The pipelines of the capabilities that are switched on, by name."""
    return declared(enabled(settings().modules))


def task_name(pipeline: Pipeline, step: Step) -> str:
    return f"{pipeline.name}.{step.name}"


def publish(due: Due) -> bool:
    """Send the Celery chain from the step to the next one that waits; False when the broker cannot be reached."""
    return not publish_many([due])


def publish_many(dues: Sequence[Due]) -> list[Due]:
    """Send a chain for each; the answer is those the broker has not taken, and all of them when that is not known.

    Never raises: the rows are committed, and a hint that cannot be given is no reason to refuse them. Redis gets
    them in one pipeline, which makes it twice as many a second and more; RabbitMQ takes them one by one.
    """
    sent: list[Due] = []
    stuck: set[str] = set()  # what held up one message of a queue would hold up each of the next for as long
    try:
        with broker.producer_or_acquire() as producer, producer.batch(BATCH):
            for due in dues:
                queue = pipelines()[due.kind].step(due.step).queue
                if queue in stuck:
                    continue
                try:
                    _send_chain(due, producer)
                    sent.append(due)
                except _REFUSED as error:
                    _log.warning("jobs_not_published", queue=queue, error=str(error))
                    stuck.add(queue)
    except _REFUSED as error:
        _log.warning("jobs_not_published", jobs=len(dues), error=str(error))
        return list(dues)
    except Exception:  # a fault of ours or the library's
        _log.exception("jobs_not_published", jobs=len(dues))
        return list(dues)
    for due in sent:
        reached("publish.after", due.job_id, due.step)
    taken = {due.job_id for due in sent}
    return [due for due in dues if due.job_id not in taken]


def _send_chain(due: Due, producer: Any) -> None:
    pipeline, job_id = pipelines()[due.kind], due.job_id
    first, *rest = pipeline.segment(due.step)
    # Redis takes the lowest number first, RabbitMQ the highest, and its quorum queues only tell above 4 from the rest
    priority = due.lane if _on_redis() else max(0, 9 - 2 * due.lane)
    reached("publish.before", job_id, due.step)
    # What `chain(...).apply_async()` puts on the wire, without building it anew for every job: the links of a chain
    # travel as a header of its first message, last link first.
    broker.send_task(
        task_name(pipeline, first),
        args=(str(job_id),),
        queue=first.queue,
        priority=priority,
        producer=producer,
        chain=[_link(pipeline, following, job_id, priority) for following in reversed(rest)] or None,
    )


def _on_redis() -> bool:
    return settings().broker_url.startswith("redis")


def publish_or_leave_to_sweep(*dues: Due) -> None:
    """Publish jobs whose rows are committed; those the broker does not take are marked for the next sweep."""
    if refused := publish_many(dues):
        with autocommit() as connection:
            unpublished(connection, [due.job_id for due in refused])


def admit(owner_id: UUID, batch: int = 1, *, patient: bool = True) -> int:
    """Publish the owner's jobs whose turn it is, if at least ``batch`` places are free; the answer is their number.

    Without ``patient`` an owner for whom somebody else counts at this moment is left to the next time.
    """
    config = settings()
    with transaction() as connection:
        admitted = admission.admit(
            connection,
            owner_id,
            limit=config.owner_running_jobs,
            batch=batch,
            republish=config.redispatch_seconds,
            patient=patient,
        )
    publish_or_leave_to_sweep(*admitted)
    return len(admitted)


def tell_cancelled(job_id: UUID, kind: str, stage: str | None) -> None:
    """Have whoever works on the job told that it was cancelled or deleted; call it after the commit. Never raises.

    Best effort: a message that gets lost costs the other side its work, nothing else. Nothing happens for a kind that
    has nobody to tell, or when the ``stage`` in which the job ended is one where nobody else was at work.
    """
    pipeline = pipelines().get(kind)
    tell = pipeline.tell_cancelled if pipeline else None
    if tell is None or stage not in tell.stages:
        return
    try:
        # a message nobody takes for an hour is about work that is over by then
        broker.send_task(tell.task, args=(str(job_id),), queue=tell.queue, expires=3600)
    except _REFUSED as error:
        _log.warning("cancellation_not_told", job_id=str(job_id), error=str(error))


def send(task: str, queue: str, calls: Sequence[Sequence[str]]) -> bool:
    """Send a message for each of the calls (their arguments); False when the broker has not taken all. Never raises."""
    try:
        with broker.producer_or_acquire() as producer, producer.batch(BATCH):
            for args in calls:
                broker.send_task(task, args=args, queue=queue, producer=producer)
    except _REFUSED as error:
        _log.warning("tasks_not_sent", task=task, number=len(calls), error=str(error))
        return False
    return True


def idle_tasks() -> list[str]:
    """The names of the step tasks for which the broker holds no message; none when it cannot be asked."""
    found = depths()
    if found is None:
        return []
    steps = [(pipeline, step) for pipeline in pipelines().values() for step in pipeline.steps]
    return [task_name(pipeline, step) for pipeline, step in steps if found[step.queue] == 0]


def was_emptied() -> bool:
    """Whether a Redis has lost what it held: FLUSHALL, or an empty one in place of the old. Once that is dealt with,
    say ``mark_kept``. False where it cannot be asked, and of RabbitMQ, which keeps what it holds on disk."""
    return _on_redis() and _asks_redis(lambda client: not client.exists(KEPT)) is True


def mark_kept() -> None:
    """Leave the mark in Redis that goes when everything goes."""
    _asks_redis(lambda client: client.set(KEPT, 1))


def _asks_redis(question: Callable[[Any], Any]) -> Any:
    with broker.connection_for_write() as connection:
        try:
            with time_limit(connection):
                return question(connection.default_channel.client)
        except (*_REFUSED, *connection.connection_errors, *connection.channel_errors) as error:
            _log.warning("broker_not_asked", error=str(error))
            return None


def every_task() -> list[str]:
    """The names of all step tasks."""
    return [task_name(pipeline, step) for pipeline in pipelines().values() for step in pipeline.steps]


def depths() -> dict[str, int] | None:
    """How many messages wait in each queue, that of the schedule included; None when the broker cannot be asked."""
    steps = {step.queue for pipeline in pipelines().values() for step in pipeline.steps}
    queues = steps | {broker.conf.task_default_queue}
    with broker.connection_for_write() as connection:
        try:
            with time_limit(connection):
                return {queue: _depth(connection, queue) for queue in queues}
        except (*_REFUSED, *connection.connection_errors) as error:
            _log.warning("broker_not_asked", error=str(error))
            return None


def _depth(connection: Any, queue: str) -> int:
    with connection.channel() as channel:  # one for each question: RabbitMQ closes it when there is no such queue
        try:
            depth: int = channel.queue_declare(queue, passive=True).message_count
        except ChannelError:
            return 0  # not there yet
        return depth


def _link(pipeline: Pipeline, step: Step, job_id: UUID, priority: int) -> dict[str, Any]:
    return {
        "task": task_name(pipeline, step),
        "args": (str(job_id),),
        "kwargs": {},
        "options": {"queue": step.queue, "task_id": uuid(), "priority": priority},
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

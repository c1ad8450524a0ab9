"""What every pipeline shares: its last step, and the sweep that makes sure no job is forgotten."""

import structlog
from sqlalchemy import Connection

from domain.errors.jobs import PendingExpired, WorkerLost
from domain.jobs import EventType
from domain.pipelines import Context, Done, JobInStep, Outcome
from storage import circuits, dispatch
from storage.configuration import settings
from storage.database import autocommit
from storage.events import announce
from storage.failpoints import reached
from storage.jobs import admission
from storage.jobs import sweep as questions
from storage.jobs.transitions import Moved
from workers import holders, retention
from workers.leases import QUARANTINE_AFTER

# Sent so long ago and not in the broker any more: lost. A worker claims what it takes within milliseconds.
PATIENCE_SECONDS = 3.0

_log = structlog.get_logger()


def finish(job: JobInStep, context: Context) -> Outcome:
    """Nothing is left to do; ending the last step is what makes the job succeed."""
    return Done()


def sweep() -> None:
    """Look for whatever stands still and set it going: lost leases, missed deadlines, unpublished jobs.

    Idempotent: two sweeps at once share the work by SKIP LOCKED.
    """
    config = settings()
    with autocommit() as connection:
        gone = [name for name in questions.holders(connection) if holders.is_gone(name)]
        moved = [
            *questions.quarantine(connection, QUARANTINE_AFTER, WorkerLost(losses=QUARANTINE_AFTER), gone),
            *questions.release_lost(connection, QUARANTINE_AFTER, gone),
            *questions.finish_cancelled(connection),
            *_overdue(connection),
            *questions.fail_abandoned(connection, config.pending_expires_seconds, PendingExpired()),
        ]
        announce([(one.owner_id, one.event) for one in moved])
        circuits.wake(connection, config.ml_probe_seconds)
        if emptied := dispatch.was_emptied():
            _log.warning("broker_was_emptied", jobs=questions.lost_messages(connection, dispatch.every_task(), 0))
        elif idle := dispatch.idle_tasks():
            questions.lost_messages(connection, idle, PATIENCE_SECONDS)
        owners = admission.owners_waiting(connection)
    if emptied:
        dispatch.mark_kept()  # not before the rows say what is lost: whoever dies in between leaves it to the next
    for one in moved:
        if one.event.type is EventType.CANCELLED:
            dispatch.tell_cancelled(one.event.job_id, one.kind, one.event.data.get("stage"))
    admitted = sum(dispatch.admit(owner_id, patient=False) for owner_id in owners)
    published = refused = 0
    while due := _publish_due(config.redispatch_seconds):
        published, refused = published + due[0], refused + due[1]
        if due[1] or sum(due) < questions.BATCH:
            break
    if moved or admitted or published or refused:
        _log.info("swept", moved=len(moved), admitted=admitted, published=published, refused=refused)


def _publish_due(republish: float) -> tuple[int, int]:
    """Publish one batch; (published, refused by the broker)."""
    with autocommit() as connection:
        due = [one for one in questions.due(connection, republish) if _is_known(one)]
        if due:
            reached("sweep.marked", *(one.job_id for one in due))
        refused = dispatch.publish_many(due)
        if refused:
            questions.unpublished(connection, [one.job_id for one in refused])
    return len(due) - len(refused), len(refused)


def _is_known(due: questions.Due) -> bool:
    """Whether there is such a step; a job of a capability that is switched off waits, and must not stop the others."""
    pipeline = dispatch.pipelines().get(due.kind)
    if pipeline and any(step.name == due.step for step in pipeline.steps):
        return True
    _log.warning("job_of_unknown_step", job_id=str(due.job_id), kind=due.kind, step=due.step)
    return False


def _overdue(connection: Connection) -> list[Moved]:
    """Where the deadline has passed: have the other side asked where it can be, else the job has failed."""
    failed: list[Moved] = []
    for pipeline in dispatch.pipelines().values():
        for step in pipeline.steps:
            following = pipeline.after(step.name)
            if step.asks and following:
                questions.ask_overdue(connection, pipeline.name, next_step=following.name, asks=step.asks)
            elif step.overdue:
                failed += questions.fail_overdue(connection, pipeline.name, step.overdue())
    return failed


steps = {"finish": finish}
schedule = {
    "jobs.sweep": (sweep, "sweep_seconds"),
    "jobs.retention": (retention.remove_expired, "retention_sweep_seconds", "io"),
}

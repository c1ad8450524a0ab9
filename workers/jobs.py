"""What every pipeline shares: its last step, and the sweep that makes sure no job is forgotten."""

import structlog
from sqlalchemy import Connection

from domain.errors import PendingExpired, WorkerLost
from domain.pipelines import Context, Done, JobInStep, Outcome
from storage import dispatch
from storage.configuration import settings
from storage.database import autocommit
from storage.events import announce
from storage.jobs import sweep as questions
from storage.jobs.transitions import Moved

QUARANTINE_AFTER = 3  # a step that has taken its worker with it so often is not given another

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
        moved = [
            *questions.quarantine(connection, QUARANTINE_AFTER, WorkerLost(losses=QUARANTINE_AFTER)),
            *questions.release_lost(connection, QUARANTINE_AFTER),
            *questions.finish_cancelled(connection),
            *_overdue(connection),
            *questions.fail_abandoned(connection, config.pending_expires_seconds, PendingExpired()),
        ]
        announce([one.event for one in moved])
        due = [one for one in questions.due(connection, config.redispatch_seconds) if _is_known(one)]
        refused = [one.job_id for one in due if not dispatch.publish(one.job_id, one.kind, one.step)]
        if refused:
            questions.unpublished(connection, refused)
    if moved or due:
        _log.info("swept", moved=len(moved), published=len(due) - len(refused), refused=len(refused))


def _is_known(due: questions.Due) -> bool:
    """Whether there is such a step; a job of a capability that is switched off waits, and must not stop the others."""
    pipeline = dispatch.pipelines().get(due.kind)
    if pipeline and any(step.name == due.step for step in pipeline.steps):
        return True
    _log.warning("job_of_unknown_step", job_id=str(due.job_id), kind=due.kind, step=due.step)
    return False


def _overdue(connection: Connection) -> list[Moved]:
    return [
        moved
        for pipeline in dispatch.pipelines().values()
        for step in pipeline.steps
        if step.overdue
        for moved in questions.fail_overdue(connection, pipeline.name, step.overdue())
    ]


steps = {"finish": finish}
schedule = {"jobs.sweep": (sweep, "sweep_seconds")}

"""An order becomes a job: the same whether it comes with a form, as JSON or with a resumable upload."""

from uuid import UUID

from sqlalchemy import Connection

from domain.identity import new_id
from domain.jobs import JobOrder
from domain.pipelines import named
from storage import dispatch, events
from storage.configuration import settings
from storage.failpoints import reached
from storage.jobs import commands


def new_job(order: JobOrder, owner_id: UUID, file_name: str | None) -> commands.NewJob:
    """Raises Invalid or UnknownProfile when the pipeline does not take what is ordered."""
    pipeline = named(dispatch.pipelines(), order.kind)
    ordered = {"profile": order.profile, "threshold": order.threshold, "inspection": order.inspection}
    params = pipeline.read_params({name: value for name, value in ordered.items() if value is not None}, settings())
    return commands.NewJob(
        id=new_id(),
        owner_id=owner_id,
        kind=pipeline.name,
        title=order.title or file_name or "untitled",
        description=order.description,
        params=params,
        first_step=pipeline.steps[0].name,
        priority=order.priority,
    )


def store(connection: Connection, job: commands.NewJob) -> commands.Ordered:
    """Store a new job in the caller's transaction; ``set_going`` follows after the commit."""
    config = settings()
    return commands.create(connection, job, limit=config.owner_running_jobs, republish=config.redispatch_seconds)


def set_going(ordered: commands.Ordered) -> None:
    """What follows the commit of an order: publish it if it is its turn, and tell. Neither can undo it."""
    reached("order.committed", ordered.event.job_id)
    if ordered.due is not None:
        dispatch.publish_or_leave_to_sweep(ordered.due)
    reached("order.published", ordered.event.job_id)
    events.announce([(ordered.owner_id, ordered.event)])

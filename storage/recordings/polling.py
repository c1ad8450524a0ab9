"""Jobs that fetch: at most one unfinished for each mailbox, whoever asks for it, and once in a slot of the schedule."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from domain.identity import new_id
from domain.recordings import PIPELINE
from storage.configuration import settings
from storage.jobs import commands
from storage.jobs.commands import NewJob, Ordered

LONGEST_PAUSE = 3600  # seconds between two looks at a server that fails, unless the schedule's own are longer

_free = """NOT EXISTS (SELECT FROM jobs WHERE jobs.id = mailboxes.job_id AND jobs.completed_at IS NULL)"""
_due = text(f"""
    UPDATE mailboxes SET next_poll_at = now() + make_interval(secs =>
        LEAST(poll_seconds * 2.0 ^ LEAST(failures, 10), GREATEST(poll_seconds, {LONGEST_PAUSE})))
    WHERE id IN (
        SELECT id FROM mailboxes WHERE enabled AND scheduled AND next_poll_at <= now()
        ORDER BY next_poll_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, owner_id, username, host, {_free} AS free""")
_asked = text(f"""
    SELECT id, owner_id, username, host, job_id, {_free} AS free FROM mailboxes
    WHERE enabled AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)
        AND (CAST(:id AS uuid) IS NULL OR id = :id)
    ORDER BY id LIMIT 100 FOR NO KEY UPDATE""")
_refused = text(f"""
    SELECT id, owner_id, username, host, {_free} AS free FROM mailboxes WHERE id = :id FOR NO KEY UPDATE""")
_name_job = text("UPDATE mailboxes SET job_id = :job_id WHERE id = :id")
# A rerun of an older job becomes the mailbox's job as soon as no other is.
_become = text(f"""
    UPDATE mailboxes SET job_id = :job_id WHERE id = :id AND enabled AND (job_id = :job_id OR {_free}) RETURNING id""")
_is_rerun = text("SELECT parent_id IS NOT NULL FROM jobs WHERE id = :id")


def order_due(connection: Connection, limit: int) -> list[Ordered]:
    """A job for each mailbox whose time has come, those left out that have one. Needs a transaction; two callers at
    once share the work. ``storage.jobs.orders.set_going`` follows after the commit."""
    due = [row for row in connection.execute(_due, {"limit": limit}) if row.free]
    return [_order(connection, row, None) for row in due]


def order_asked(
    connection: Connection, owner_id: UUID | None, mailbox_id: UUID | None, days_back: int | None
) -> tuple[list[Ordered], list[UUID]]:
    """(new jobs, all jobs that fetch) of the enabled mailboxes of the owner (of everybody for None), or of the one
    named. Needs a transaction."""
    ordered: list[Ordered] = []
    jobs: list[UUID] = []
    for row in connection.execute(_asked, {"owner_id": owner_id, "id": mailbox_id}).all():
        if row.free:
            ordered.append(_order(connection, row, days_back))
            jobs.append(ordered[-1].event.job_id)
        else:
            jobs.append(row.job_id)
    return ordered, jobs


def order_refused(connection: Connection, mailbox_id: UUID) -> Ordered | None:
    """A job that tells of a login that was refused while no job was about it: it fails, for all who watch. Needs a
    transaction. None where there is a job under way, which fails by itself."""
    row = connection.execute(_refused, {"id": mailbox_id}).one_or_none()
    return _order(connection, row, None) if row is not None and row.free else None


def become(connection: Connection, mailbox_id: UUID, job_id: UUID) -> bool:
    """Whether the job is the mailbox's one job now; not while another is unfinished, or the mailbox is disabled."""
    return connection.execute(_become, {"id": mailbox_id, "job_id": job_id}).first() is not None


def is_rerun(connection: Connection, job_id: UUID) -> bool:
    """Whether somebody has asked for an earlier job again (POST /jobs/{id}/retry)."""
    return bool(connection.execute(_is_rerun, {"id": job_id}).scalar())


def _order(connection: Connection, row: Row[Any], days_back: int | None) -> Ordered:
    job = NewJob(
        id=new_id(),
        owner_id=row.owner_id,
        kind=PIPELINE.name,
        title=f"{row.username} at {row.host}"[:255],
        description=None,
        params={"mailbox_id": str(row.id)} | ({} if days_back is None else {"days_back": days_back}),
        first_step=PIPELINE.steps[0].name,
        takes_file=False,
    )
    config = settings()
    ordered = commands.create(connection, job, limit=config.owner_running_jobs, republish=config.redispatch_seconds)
    connection.execute(_name_job, {"id": row.id, "job_id": job.id})
    return ordered

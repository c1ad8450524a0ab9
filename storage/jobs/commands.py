"""What clients order: jobs created, completed with a file, renamed, deleted. Each is one statement."""

from typing import Any
from uuid import UUID

import msgspec
import structlog
from psycopg import errors as pg
from sqlalchemy import Connection, Row, exc, text

from domain.errors.requests import Conflict, NotFound
from domain.jobs import FINAL, RANKS, Event, Priority
from storage.jobs import admission, inputs
from storage.jobs.admission import COUNTED, lane
from storage.jobs.statements import CLOSED, SNAPSHOT, move
from storage.jobs.sweep import Due, due_of
from storage.jobs.transitions import Moved, event_of, moved_of

_event = f"""event AS (
    INSERT INTO job_events (job_id, seq, type, data, owner_id)
    SELECT id, event_seq, CASE WHEN status = 'pending' THEN 'created' ELSE status::text END, {SNAPSHOT}, owner_id
    FROM moved
    RETURNING job_id, seq, type, at, data)
    SELECT moved.id, moved.owner_id, moved.kind, moved.step, moved.lane, moved.admitted,
           event.seq, event.type, event.at, event.data
    FROM moved JOIN event ON event.job_id = moved.id"""

_create = text(f"""
    WITH moved AS (
        INSERT INTO jobs (id, owner_id, kind, title, description, params, input_file_id, owns_input, parent_id,
                          request_id, priority, status, event_seq)
        VALUES (:id, :owner_id, :kind, :title, :description, CAST(:params AS jsonb), :input_file_id, :owns_input,
                :parent_id, :request_id, :priority, 'pending', 1)
        RETURNING *),
    {_event}""")
_create_queued = text(f"""
    WITH moved AS (
        INSERT INTO jobs (id, owner_id, kind, title, description, params, input_file_id, owns_input, parent_id,
                          request_id, priority, status, step,
                          queued_at, republish_at, admitted, lane, published_at, publishes, event_seq)
        SELECT :id, :owner_id, :kind, :title, :description, CAST(:params AS jsonb), :input_file_id, :owns_input,
               :parent_id, :request_id, :priority, 'queued', :first_step, now(),
               now() + make_interval(secs => :republish),
               running < :limit, {lane("ahead[:priority + 1]")}, CASE WHEN running < :limit THEN now() END,
               (running < :limit)::int, 1
        FROM ({COUNTED}) AS counted
        RETURNING *),
    {_event}""")
_attach = text(f"""
    WITH moved AS (
        UPDATE jobs SET status = 'queued', step = :step, input_file_id = :input_file_id, owns_input = :owns_input,
            queued_at = now(), run_at = now(), republish_at = now() + make_interval(secs => :republish),
            admitted = running < :limit, lane = {lane("ahead[jobs.priority + 1]")},
            published_at = CASE WHEN running < :limit THEN now() END, publishes = (running < :limit)::int,
            event_seq = event_seq + 1, updated_at = now()
        FROM ({COUNTED}) AS counted
        WHERE id = :id AND owner_id = :owner_id AND status = 'pending' AND cancel_requested_at IS NULL
        RETURNING jobs.*),
    {_event}""")
_rename = text("""
    UPDATE jobs SET title = COALESCE(:title, title), updated_at = now(),
        description = CASE WHEN :describe THEN :description ELSE description END
    WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)""")
# Nobody holds it: it ends here and now. Else its worker is asked to leave, at its next checkpoint.
_cancel_now = move(
    f"status = 'cancelled', {CLOSED}, cancel_requested_at = now(), message = NULL",
    "id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id) AND completed_at IS NULL AND claim IS NULL",
    "'cancelled'",
)
_ask_to_cancel = text("""
    UPDATE jobs SET cancel_requested_at = COALESCE(cancel_requested_at, now())
    WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id) AND completed_at IS NULL""")
# Held before anything else, as whoever deletes the job does: one waits for the other, and never each for each.
_rerun = text("""
    SELECT jobs.kind, jobs.title, jobs.description, jobs.params, jobs.input_file_id, jobs.owns_input, jobs.owner_id,
           jobs.priority, jobs.status
    FROM jobs WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id) FOR KEY SHARE""")
# As _cancel_now, held or not: a worker that is at it finds its claim gone and leaves, and commits nothing.
_end_for_deletion = move(
    f"status = 'cancelled', {CLOSED}, cancel_requested_at = COALESCE(cancel_requested_at, now()), message = NULL",
    "id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id) AND completed_at IS NULL",
    "'cancelled'",
)
_delete = text("""
    DELETE FROM jobs WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)
    RETURNING input_file_id, owns_input""")


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    owner_id: UUID
    kind: str
    title: str
    description: str | None
    params: dict[str, Any]
    first_step: str
    input_file_id: UUID | None = None
    owns_input: bool = False
    parent_id: UUID | None = None
    priority: Priority = Priority.NORMAL
    takes_file: bool = True  # else it is queued without one


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order: its event, and what to publish after the commit, if it is its turn."""

    owner_id: UUID
    event: Event
    due: Due | None


def create(connection: Connection, job: NewJob, *, limit: int, republish: float) -> Ordered:
    """A job in `queued` when it has its file or needs none, in `pending` when it waits for one. Needs a transaction.

    It is its turn when fewer than ``limit`` of its owner's jobs are under way; else it waits to be admitted.

    Raises:
        NotFound: the file it names was deleted meanwhile.
    """
    values = {name: value for name, value in msgspec.structs.asdict(job).items() if name != "takes_file"}
    values |= {"params": msgspec.json.encode(job.params).decode()}
    values["priority"] = RANKS[job.priority]
    values["request_id"] = structlog.contextvars.get_contextvars().get("request_id")
    if job.input_file_id is None and job.takes_file:
        return _ordered(connection.execute(_create, values).one())
    admission.lock(connection, job.owner_id)
    try:
        row = connection.execute(_create_queued, {**values, "limit": limit, "republish": republish}).one()
    except exc.IntegrityError as error:
        if isinstance(error.orig, pg.ForeignKeyViolation) and "input_file" in str(error.orig):
            raise NotFound(what="file") from error
        raise
    return _ordered(row)


def attach(
    connection: Connection,
    job_id: UUID,
    owner_id: UUID,
    input_file_id: UUID,
    *,
    owns_input: bool,
    first_step: str,
    limit: int,
    republish: float,
) -> Ordered | None:
    """Give a pending job its file and queue it; None when it is not pending (any more). Needs a transaction."""
    admission.lock(connection, owner_id)
    values = {"id": job_id, "owner_id": owner_id, "input_file_id": input_file_id, "owns_input": owns_input}
    values |= {"step": first_step, "limit": limit, "republish": republish}
    row = connection.execute(_attach, values).one_or_none()
    return None if row is None else _ordered(row)


def _ordered(row: Row[Any]) -> Ordered:
    return Ordered(owner_id=row.owner_id, event=event_of(row), due=due_of(row) if row.admitted else None)


def cancel(connection: Connection, job_id: UUID, owner_id: UUID | None) -> tuple[bool, Moved | None]:
    """Ask for the job to be cancelled: (whether there was such an unfinished job, the move if it ended at once)."""
    values = {"id": job_id, "owner_id": owner_id}
    row = connection.execute(_cancel_now, values).one_or_none()
    if row is not None:
        return True, moved_of(row)
    return connection.execute(_ask_to_cancel, values).rowcount == 1, None


def rerun(
    connection: Connection,
    job_id: UUID,
    owner_id: UUID | None,
    new_id: UUID,
    first_step: str,
    *,
    takes_file: bool = True,
) -> NewJob | None:
    """A new job like that one, not stored yet; None when there is no such job. Needs the transaction that stores it:
    until its end nobody deletes the one it is like.

    Raises:
        Conflict: it has not ended yet, or never had the file it works on.
    """
    row = connection.execute(_rerun, {"id": job_id, "owner_id": owner_id}).one_or_none()
    if row is None:
        return None
    if row.status not in FINAL:
        raise Conflict(reason=f"the job has not ended yet (it is {row.status}); cancel it first")
    if row.input_file_id is None and takes_file:
        raise Conflict(reason="the job never had a file to work on")
    return NewJob(
        id=new_id,
        owner_id=row.owner_id,
        kind=row.kind,
        title=row.title,
        description=row.description,
        params=row.params,
        first_step=first_step,
        input_file_id=row.input_file_id,
        owns_input=row.owns_input,
        parent_id=job_id,
        priority=next(priority for priority, rank in RANKS.items() if rank == row.priority),
        takes_file=takes_file,
    )


def rename(
    connection: Connection,
    job_id: UUID,
    owner_id: UUID | None,
    *,
    title: str | None,
    description: str | None,
    describe: bool,
) -> bool:
    """Change the title where given, and the description (to None, too) where ``describe``; False: no such job."""
    values = {"id": job_id, "owner_id": owner_id, "title": title, "description": description, "describe": describe}
    return connection.execute(_rename, values).rowcount == 1


def end(connection: Connection, job_id: UUID, owner_id: UUID | None) -> Moved | None:
    """Cancel a job, whoever works on it, as the first half of its deletion; None when it has ended, or is not there.

    Needs the transaction of ``delete``. The event goes with the job: nobody can read it but in what is announced.
    """
    row = connection.execute(_end_for_deletion, {"id": job_id, "owner_id": owner_id}).one_or_none()
    return None if row is None else moved_of(row)


def delete(connection: Connection, job_id: UUID, owner_id: UUID | None) -> list[str] | None:
    """Delete a job in whatever state; the object keys to delete after the commit, None when there is no such job.

    Needs a transaction. Results lie below ``results/{job_id}/`` and are not listed here.
    """
    row = connection.execute(_delete, {"id": job_id, "owner_id": owner_id}).one_or_none()
    if row is None:
        return None
    return inputs.let_go(connection, [row.input_file_id] if row.owns_input else [])

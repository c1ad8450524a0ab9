"""What clients order: jobs created, completed with a file, renamed, deleted. Each is one statement."""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, text

from domain.jobs import Event, Status
from storage.jobs.statements import SNAPSHOT
from storage.jobs.transitions import event_of

_event = f"""event AS (
    INSERT INTO job_events (job_id, seq, type, data) SELECT id, event_seq, status::text, {SNAPSHOT} FROM moved
    RETURNING job_id, seq, type, at, data)
    SELECT event.job_id AS id, event.seq, event.type, event.at, event.data FROM event"""

_create = text(f"""
    WITH moved AS (
        INSERT INTO jobs (id, owner_id, kind, title, description, params, input_file_id, owns_input, parent_id, status,
                          step, queued_at, republish_at, event_seq)
        VALUES (:id, :owner_id, :kind, :title, :description, CAST(:params AS jsonb), :input_file_id, :owns_input,
                :parent_id, CAST(:status AS job_status), :step, CASE WHEN :status = 'queued' THEN now() END,
                now() + make_interval(secs => :republish), 1)
        RETURNING *),
    {_event.replace("status::text", "CASE WHEN status = 'pending' THEN 'created' ELSE 'queued' END")}""")
_attach = text(f"""
    WITH moved AS (
        UPDATE jobs SET status = 'queued', step = :step, input_file_id = :input_file_id, owns_input = :owns_input,
            queued_at = now(), run_at = now(), republish_at = now() + make_interval(secs => :republish),
            event_seq = event_seq + 1, updated_at = now()
        WHERE id = :id AND status = 'pending' RETURNING *),
    {_event}""")
_rename = text("""
    UPDATE jobs SET title = COALESCE(:title, title), updated_at = now(),
        description = CASE WHEN :describe THEN :description ELSE description END
    WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)""")
# A worker that is at it finds its claim gone and leaves. The file goes too when it came with the job and no other job
# works on it.
_delete = text("""
    WITH gone AS (
        DELETE FROM jobs WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)
        RETURNING id, input_file_id, owns_input)
    SELECT input_file_id, owns_input AND NOT EXISTS (
        SELECT FROM jobs WHERE jobs.input_file_id = gone.input_file_id AND jobs.id <> gone.id) AS alone FROM gone""")
_delete_file = text("DELETE FROM files WHERE id = :id RETURNING object_key")


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


def create(connection: Connection, job: NewJob, republish: float) -> Event:
    """A job in `queued` when it has its file, in `pending` when it has not; the sweep looks after ``republish`` s."""
    queued = job.input_file_id is not None
    values = msgspec.structs.asdict(job) | {
        "params": msgspec.json.encode(job.params).decode(),
        "status": Status.QUEUED if queued else Status.PENDING,
        "step": job.first_step if queued else None,
        "republish": republish,
    }
    return event_of(connection.execute(_create, values).one())


def attach(
    connection: Connection, job_id: UUID, input_file_id: UUID, *, owns_input: bool, first_step: str, republish: float
) -> Event | None:
    """Give a pending job its file and queue it; None when it is not pending (any more)."""
    values = {"id": job_id, "input_file_id": input_file_id, "owns_input": owns_input, "step": first_step}
    row = connection.execute(_attach, {**values, "republish": republish}).one_or_none()
    return None if row is None else event_of(row)


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


def delete(connection: Connection, job_id: UUID, owner_id: UUID | None) -> list[str] | None:
    """Delete a job in whatever state; the object keys to delete after the commit, None when there is no such job.

    Needs a transaction. Results lie below ``results/{job_id}/`` and are not listed here.
    """
    row = connection.execute(_delete, {"id": job_id, "owner_id": owner_id}).one_or_none()
    if row is None:
        return None
    if not row.alone:
        return []
    return [connection.execute(_delete_file, {"id": row.input_file_id}).scalar_one()]

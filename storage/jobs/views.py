"""Jobs as clients see them: one job, and pages of them."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from domain.files import File
from domain.jobs import RANKS, Attempt, AttemptError, Inspection, Job, JobError, Result, Status
from storage.jobs.statements import ETA_SECONDS

COLUMNS = f"""jobs.id, jobs.kind, jobs.title, jobs.description, jobs.status, jobs.stage, jobs.progress, jobs.message,
    {ETA_SECONDS} AS eta_seconds,
    jobs.params, jobs.parent_id, jobs.result_key, jobs.result_name, jobs.result_size, jobs.error_code,
    jobs.error_message, jobs.error_stage, jobs.error_retryable, jobs.attempt, jobs.priority,
    jobs.created_at, jobs.updated_at,
    jobs.queued_at, jobs.started_at, jobs.completed_at, results.parsed_at AS results_parsed_at,
    files.id AS file_id, files.filename, files.name AS file_name, files.size AS file_size, files.content_type,
    files.sha256, files.kind AS file_kind, files.created_at AS file_created_at, files.object_key"""
TABLES = """jobs LEFT JOIN files ON files.id = jobs.input_file_id LEFT JOIN results ON results.job_id = jobs.id"""

_PRIORITY = {rank: priority for priority, rank in RANKS.items()}
_one = text(f"""
    SELECT {COLUMNS} FROM {TABLES}
    WHERE jobs.id = :id AND (CAST(:owner_id AS uuid) IS NULL OR jobs.owner_id = :owner_id)""")
_standing = text("""
    SELECT status, event_seq FROM jobs
    WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)""")
_attempts = text("""
    SELECT id, step, attempt, outcome, worker, started_at, finished_at, error_code, error_message FROM job_attempts
    WHERE job_id = :id AND id > :after
    UNION ALL
    SELECT NULL, step, attempt, 'running', claimed_by, claimed_at, NULL, NULL, NULL FROM jobs
    WHERE id = :id AND claim IS NOT NULL
    ORDER BY id LIMIT :limit""")
_owner = text("SELECT owner_id FROM jobs WHERE id = :id")
_signalled = text("SELECT status, signal, result_key IS NOT NULL AS has_result FROM jobs WHERE id = :id")
_page = text(f"""
    SELECT {COLUMNS} FROM {TABLES}
    WHERE (CAST(:owner_id AS uuid) IS NULL OR jobs.owner_id = :owner_id)
      AND (CAST(:after AS uuid) IS NULL OR jobs.id < :after)
      AND (CAST(:status AS job_status) IS NULL OR jobs.status = :status)
      AND (CAST(:kind AS text) IS NULL OR jobs.kind = :kind)
      AND (CAST(:text AS text) IS NULL OR jobs.title ILIKE :text OR jobs.description ILIKE :text)
    ORDER BY jobs.id DESC LIMIT :limit""")


def one(connection: Connection, job_id: UUID, owner_id: UUID | None) -> Job | None:
    """The job if it belongs to ``owner_id``; None for ``owner_id`` stands for an administrator, who sees all."""
    row = connection.execute(_one, {"id": job_id, "owner_id": owner_id}).one_or_none()
    return None if row is None else job_of(row)


def with_keys(connection: Connection, job_id: UUID, owner_id: UUID | None) -> tuple[Job, str | None, str | None] | None:
    """The job with the object keys of its input and its result, which clients never see."""
    row = connection.execute(_one, {"id": job_id, "owner_id": owner_id}).one_or_none()
    return None if row is None else (job_of(row), row.object_key, row.result_key)


def standing(connection: Connection, job_id: UUID, owner_id: UUID | None) -> tuple[Status | None, int]:
    """(status, number of the last event) of the job; (None, 0) when it is not there for this owner."""
    row = connection.execute(_standing, {"id": job_id, "owner_id": owner_id}).one_or_none()
    return (None, 0) if row is None else (Status(row.status), row.event_seq)


def attempts(connection: Connection, job_id: UUID, *, after: int, limit: int) -> list[tuple[int | None, Attempt]]:
    """(cursor, attempt) of at most ``limit`` attempts after the cursor ``after``; the running one, last, has none."""
    rows = connection.execute(_attempts, {"id": job_id, "after": after, "limit": limit})
    return [(row.id, _attempt(row)) for row in rows]


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        step=row.step,
        attempt=row.attempt,
        outcome=row.outcome,
        worker=row.worker,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=AttemptError(code=row.error_code, message=row.error_message) if row.error_code else None,
    )


def owner(connection: Connection, job_id: UUID) -> UUID | None:
    """Whose job it is; None when there is no such job."""
    found: UUID | None = connection.execute(_owner, {"id": job_id}).scalar_one_or_none()
    return found


def signalled(connection: Connection, job_id: UUID) -> tuple[Status, dict[str, Any] | None, bool] | None:
    """(status, what ended its waiting, whether it has a result) of a job, whoever owns it."""
    row = connection.execute(_signalled, {"id": job_id}).one_or_none()
    return None if row is None else (Status(row.status), row.signal, row.has_result)


def page(
    connection: Connection,
    owner_id: UUID | None,
    *,
    after: UUID | None,
    limit: int,
    status: Status | None,
    kind: str | None,
    words: str | None,
) -> list[Job]:
    """Newest first, those older than ``after``; ``words`` is looked for in title and description."""
    pattern = None
    if words is not None:
        escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        pattern = f"%{escaped}%"
    values = {"owner_id": owner_id, "after": after, "limit": limit, "status": status, "kind": kind, "text": pattern}
    return [job_of(row) for row in connection.execute(_page, values)]


def job_of(row: Row[Any]) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        title=row.title,
        description=row.description,
        status=Status(row.status),
        stage=row.stage,
        progress=row.progress,
        eta_seconds=row.eta_seconds,
        message=row.message,
        file=_file(row),
        result=Result(name=row.result_name, size=row.result_size) if row.result_key else None,
        error=_error(row),
        parent_id=row.parent_id,
        profile=row.params.get("profile"),
        threshold=row.params.get("threshold"),
        priority=_PRIORITY[row.priority],
        inspection=None if (inspection := row.params.get("inspection")) is None else Inspection(inspection),
        attempts=row.attempt,
        created_at=row.created_at,
        updated_at=row.updated_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        results_parsed_at=row.results_parsed_at,
    )


def _file(row: Row[Any]) -> File | None:
    if row.file_id is None:
        return None
    return File(
        id=row.file_id,
        filename=row.filename,
        name=row.file_name,
        size=row.file_size,
        content_type=row.content_type,
        sha256=row.sha256,
        type=row.file_kind,
        created_at=row.file_created_at,
    )


def _error(row: Row[Any]) -> JobError | None:
    if row.error_code is None:
        return None
    return JobError(
        code=row.error_code, message=row.error_message, stage=row.error_stage, retryable=row.error_retryable
    )

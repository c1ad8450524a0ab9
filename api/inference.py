"""What the ML service calls: the completion of a job, and its progress on the way.

These two take no access token but the service's own (ML_SERVICE_TOKEN), compared in constant time.
"""

import hmac
from typing import Any
from uuid import UUID

from litestar import post
from litestar.params import FromPath, JSONBody

from api.objects import blocking
from api.security import PUBLIC
from domain.errors import CompletionConflict, Invalid, JobNotReady, MlFailed, NotAuthenticated, NotFound
from domain.files import clean_name
from domain.inference import PIPELINE, Completion, Progress, outcome_of, result_prefix
from domain.jobs import Job, Status
from domain.pipelines import ResultFile
from storage import dispatch, events, objects
from storage.configuration import settings
from storage.database import autocommit
from storage.jobs import transitions, views

WAITING_STEP = "submit"
MAX_BODY = 64 * 1024  # bytes

_FROM, _UNTIL = PIPELINE.starts_at(WAITING_STEP), PIPELINE.step(WAITING_STEP).until


def from_ml_service(connection: Any, _: object) -> None:
    """Guard: the bearer token is the ML service's. Raises NotAuthenticated."""
    scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
    expected = settings().ml_service_token.encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), expected):
        raise NotAuthenticated


@post(
    "/internal/jobs/{job_id:uuid}/completion",
    tags=["ml service"],
    summary="The ML service reports a job's outcome",
    status_code=200,
    guards=[from_ml_service],
    request_max_body_size=MAX_BODY,
    **PUBLIC,
)
async def complete(job_id: FromPath[UUID], data: JSONBody[Completion]) -> Job:
    """May come before the answer to the submission, and more than once. 409 `completion_conflict` when the job already
    has another outcome."""
    return await blocking(_complete, job_id, data)


def _complete(job_id: UUID, completion: Completion) -> Job:
    outcome = outcome_of(completion.status)
    if outcome is None:
        raise Invalid(field="status", reason=f"{completion.status!r} is neither a word of success nor of failure")
    signal = {"outcome": outcome, "error": completion.error}
    if outcome == "succeeded":
        moved = _succeed(job_id, completion, signal)
    else:
        error = MlFailed(reason=completion.error or "no reason given")
        with autocommit() as connection:
            moved = transitions.fail_signalled(connection, job_id, signal, error, waits=WAITING_STEP)
    if moved is None:
        _check_repeated(job_id, outcome)
    else:
        events.announce([moved.event])
        if moved.step and not moved.held:  # held: the worker that has just submitted it goes on by itself
            dispatch.publish_or_leave_to_sweep(job_id, moved.kind, moved.step)
    with autocommit() as connection:
        job = views.one(connection, job_id, None)
    if job is None:
        raise NotFound(what="job")
    return job


def _succeed(job_id: UUID, completion: Completion, signal: dict[str, Any]) -> transitions.Moved | None:
    key = completion.output_object or objects.result_key(job_id, 1)
    if not key.startswith(result_prefix(str(job_id))):
        raise Invalid(field="output_object", reason=f"must lie below {result_prefix(str(job_id))}")
    result = ResultFile(
        key=key, name=clean_name(completion.file_name or "") or f"{job_id}.xlsx", size=completion.file_size or 0
    )
    with autocommit() as connection:
        return transitions.signal(
            connection,
            job_id,
            signal,
            waits=WAITING_STEP,
            until=_UNTIL,
            republish=settings().redispatch_seconds,
            result=result,
        )


def _check_repeated(job_id: UUID, outcome: str) -> None:
    """The job did not wait: fine when it has been told the same before.

    Raises:
        NotFound, JobNotReady (never submitted), CompletionConflict (another outcome).
    """
    with autocommit() as connection:
        known = views.signalled(connection, job_id)
    if known is None:
        raise NotFound(what="job")
    status, signal = known
    if status in (Status.PENDING, Status.QUEUED) or (status is Status.PROCESSING and signal is None):
        raise JobNotReady(what="submission", status=status)
    told = signal["outcome"] if signal else ("succeeded" if status is Status.SUCCEEDED else None)
    if told != outcome or status is Status.CANCELLED:
        raise CompletionConflict(status=status)


@post(
    "/internal/jobs/{job_id:uuid}/progress",
    tags=["ml service"],
    summary="The ML service reports how far it is",
    status_code=204,
    guards=[from_ml_service],
    request_max_body_size=MAX_BODY,
    sync_to_thread=True,
    **PUBLIC,
)
def report_progress(job_id: FromPath[UUID], data: JSONBody[Progress]) -> None:
    """Optional, as often as the service likes. 409 `job_not_ready` when the job does not wait for the service."""
    percent = _FROM + round(data.progress / 100 * (_UNTIL - _FROM))
    with autocommit() as connection:
        event = transitions.remote_progress(connection, job_id, percent, data.message, waits=WAITING_STEP)
        if event is None:
            known = views.signalled(connection, job_id)
    if event is None:
        if known is None:
            raise NotFound(what="job")
        raise JobNotReady(what="submission", status=known[0])
    events.announce([event])


routes = [complete, report_progress]

"""What the ML service calls: the completion of a job, and its progress on the way.

These two take no access token but the service's own (ML_SERVICE_TOKEN), or its signature (ML_SIGNING_SECRET, Standard
Webhooks); both are compared in constant time.
"""

import hmac
import time
from typing import Any
from uuid import UUID

from litestar import post
from litestar.params import FromPath, JSONBody

from api.jobs.examples import PROCESSING
from api.objects import blocking
from api.openapi.operation import documented
from domain import signatures
from domain.errors.accounts import NotAuthenticated
from domain.errors.inference import MlFailed
from domain.errors.jobs import CompletionConflict, JobNotReady
from domain.errors.requests import BodyTooLarge, Invalid, NotFound
from domain.inference import PIPELINE, Completion, Progress, outcome_of, reason_of, result_of
from domain.jobs import Job, Status
from storage import dispatch, events
from storage.configuration import settings
from storage.database import autocommit
from storage.failpoints import reached
from storage.jobs import transitions, views
from storage.jobs.sweep import Due

WAITING_STEP, ASKING_STEP = "submit", "ask"
MAX_BODY = 1024 * 1024  # bytes

_FROM, _UNTIL = PIPELINE.starts_at(WAITING_STEP), PIPELINE.step(WAITING_STEP).until


async def from_ml_service(connection: Any, _: object) -> None:
    """Guard: the request is signed with ML_SIGNING_SECRET, or bears the ML service's token.

    A signature counts once a secret is set, and then it must be right, whatever token comes with it. Raises
    NotAuthenticated, and 413 for a body that is too large to be looked at.
    """
    config = settings()
    if config.ml_signing_secret and signatures.is_signed(connection.headers):
        key = signatures.key_of(config.ml_signing_secret)
        if not signatures.verify(key, connection.headers, await connection.body(), time.time()):
            raise NotAuthenticated
        return
    scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
    expected = config.ml_service_token.encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), expected):
        raise NotAuthenticated


# No access token, but the service's own.
_CALLBACK: dict[str, Any] = {
    "opt": {"public": True},
    "guards": [from_ml_service],
    "security": [{"mlService": []}],
    "request_max_body_size": MAX_BODY,
}
_ERRORS = (
    NotFound(what="job"),
    JobNotReady(what="submission", status=Status.QUEUED),
    BodyTooLarge(limit=MAX_BODY),
)


@post(
    "/internal/jobs/{job_id:uuid}/completion",
    operation_id="complete_job",
    tags=["ML service"],
    summary="The ML service reports a job's outcome",
    status_code=200,
    **_CALLBACK,
    **documented(
        *_ERRORS,
        CompletionConflict(status=Status.FAILED),
        Invalid(field="status", reason="'finished' is neither a word of success nor of failure"),
        body={
            "Done": {"status": "succeeded", "file_size": 5414, "file_name": "results.xlsx"},
            "Failed": {"status": "failed", "error": "no series of at least 16 slices"},
        },
        answer={"Example": PROCESSING},
    ),
)
async def complete(job_id: FromPath[UUID], data: JSONBody[Completion]) -> Job:
    """May come before the answer to the submission, and more than once. 409 `completion_conflict` when the job already
    has another outcome."""
    return await blocking(_complete, job_id, data)


def _complete(job_id: UUID, completion: Completion) -> Job:
    outcome = outcome_of(completion.status)
    if outcome is None:
        raise Invalid(field="status", reason=f"{completion.status!r} is neither a word of success nor of failure")
    if completion.job_uuid not in (None, job_id):
        raise Invalid(field="job_uuid", reason="is another job than the one in the URL")
    reason = reason_of(completion.error)
    signal = {"outcome": outcome, "error": reason if completion.error else None}
    if outcome == "succeeded":
        moved = _succeed(job_id, completion, signal)
    else:
        error = MlFailed(reason=reason)
        with autocommit() as connection:
            moved = transitions.fail_signalled(connection, job_id, signal, error, waits=WAITING_STEP, asks=ASKING_STEP)
    if moved is None:
        _check_repeated(job_id, outcome)
    else:
        reached("signal.committed", job_id)
        events.announce([(moved.owner_id, moved.event)])
        if moved.step and not moved.held:  # held: the worker that has just submitted it goes on by itself
            dispatch.publish_or_leave_to_sweep(Due(job_id=job_id, kind=moved.kind, step=moved.step, lane=moved.lane))
        if moved.backlog:
            dispatch.admit(moved.owner_id)
    with autocommit() as connection:
        job = views.one(connection, job_id, None)
    if job is None:
        raise NotFound(what="job")
    return job


def _succeed(job_id: UUID, completion: Completion, signal: dict[str, Any]) -> transitions.Moved | None:
    result = result_of(job_id, completion)
    with autocommit() as connection:
        return transitions.signal(
            connection,
            job_id,
            signal,
            waits=WAITING_STEP,
            asks=ASKING_STEP,
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
    status, signal, has_result = known
    told = signal["outcome"] if signal else ("succeeded" if has_result else None)
    if status in (Status.PENDING, Status.QUEUED) or (status is Status.PROCESSING and told is None):
        raise JobNotReady(what="submission", status=status)
    if told != outcome or status is Status.CANCELLED:
        raise CompletionConflict(status=status)


@post(
    "/internal/jobs/{job_id:uuid}/progress",
    tags=["ML service"],
    summary="The ML service reports how far it is",
    status_code=204,
    sync_to_thread=True,
    **_CALLBACK,
    **documented(*_ERRORS),
)
def report_progress(job_id: FromPath[UUID], data: JSONBody[Progress]) -> None:
    """Optional, as often as the service likes: the job has the newest, its streams are told ten times a second at
    most. From the pace of the reports comes the job's `eta_seconds`. 409 `job_not_ready` when the job does not wait
    for the service."""
    percent = _FROM + round(data.progress / 100 * (_UNTIL - _FROM))
    with autocommit() as connection:
        reported = transitions.remote_progress(
            connection,
            job_id,
            percent,
            data.message,
            waits=WAITING_STEP,
            asks=ASKING_STEP,
            share=data.progress / 100,
        )
        if reported is None:
            known = views.signalled(connection, job_id)
    if reported is None:
        if known is None:
            raise NotFound(what="job")
        raise JobNotReady(what="submission", status=known[0])
    if reported.due:
        events.announce([(reported.owner_id, reported.event)])


routes = [complete, report_progress]

"""The steps that speak to the ML service: `submit` hands it the job, `ask` asks what became of it after a silence.

While the service works no worker is held. While it is down (``workers.circuits``) jobs wait for it, and no attempt is
counted: docs/ml-service.md says how that and the retry policy play together.
"""

import random
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import structlog

from domain.errors import MillraceError
from domain.errors.inference import MlFailed, MlProtocolError, MlRejected, MlTimeout, MlUnavailable, ResultMissing
from domain.errors.neighbours import ObjectMissing
from domain.errors.requests import Invalid
from domain.inference import (
    PIPELINE,
    UNFINISHED_WORDS,
    UNKNOWN,
    Acceptance,
    Standing,
    Submission,
    outcome_of,
    reason_of,
    result_of,
    result_prefix,
)
from domain.pipelines import Context, Done, Failed, JobInStep, Later, Outcome, ResultFile, Wait
from storage import objects
from storage.configuration import settings
from storage.failpoints import reached
from workers import circuits, ml

# Longer than the waiting, so that a service that finishes in the last minute can still deliver.
_MARGIN_SECONDS = 600
_LONGEST_SIGNED = 7 * 24 * 3600  # seconds; what Signature Version 4 allows

T = TypeVar("T")
_log = structlog.get_logger()


def submit(job: JobInStep, context: Context) -> Outcome:
    """POST the job to the ML service.

    The claim, committed before the POST, is what a completion needs to be accepted: it may come before the answer. The
    attempt's number is part of the idempotency key and stays the same when a worker dies or the job is put off, so a
    step done again is the same submission to the service.

    Raises:
        MlUnavailable: it failed for a passing reason and the circuit is closed; counts as an attempt.
        MlRejected, MlProtocolError
    """
    if job.signal is not None:  # completed before an earlier delivery of this step came to its end
        return Done()
    key, limit = f"{job.id}:{job.attempt}", settings().ml_give_up_seconds
    submission = _submission(job)
    reached("submit.before", job.id)
    answer = _heard(job, lambda: ml.submit(submission, idempotency_key=key), limit=limit, late=None)
    if isinstance(answer, (Later, Failed)):
        return answer
    reached("submit.after", job.id)
    if answer is None:
        return Wait(seconds=settings().ml_deadline_seconds, message="accepted by the ML service")
    return Done(result=_result(job.id, answer), message="done by the ML service")


def ask(job: JobInStep, context: Context) -> Outcome:
    """The deadline has passed without a completion: GET how the job stands, and decide.

    A service that cannot be reached, or cannot be asked, has timed out; one that is still at it may go on until
    ML_MAX_WAIT_SECONDS after it accepted the job.
    """
    if job.signal is not None:
        return Done()
    limit = settings().ml_max_wait_seconds
    try:
        standing = _heard(job, lambda: ml.status(job.id), limit=limit, late=MlTimeout())
    except MlUnavailable:
        policy = PIPELINE.step(job.step).retry
        if policy and job.attempt < policy.attempts:
            raise
        return Failed(error=MlTimeout())
    except (MlRejected, MlProtocolError) as error:
        _log.warning("ml_status_unreadable", error=str(error))
        return Failed(error=MlTimeout())
    if isinstance(standing, (Later, Failed)):
        return standing
    left = limit - job.delayed
    if standing is not None and standing.status == UNKNOWN and left > 0:
        return _submitted_again(job, left)
    return _judged(job, standing, left)


def _submitted_again(job: JobInStep, left: float) -> Outcome:
    """The service has forgotten the job, as after a restart: what it was given then is given to it again."""
    key, submission = f"{job.id}:{job.attempt}", _submission(job)
    answer = _heard(job, lambda: ml.submit(submission, idempotency_key=key), limit=left + job.delayed, late=MlTimeout())
    if isinstance(answer, (Later, Failed)):
        return answer
    if answer is None:
        return Wait(seconds=min(settings().ml_deadline_seconds, left), message="submitted to the ML service again")
    return Done(result=_result(job.id, answer), message="done by the ML service")


def _judged(job: JobInStep, standing: Standing | None, left: float) -> Outcome:
    """What follows from the service's answer; with ``left`` seconds of the longest waiting to go."""
    if standing is None:
        return Failed(error=MlTimeout())
    match outcome_of(standing.status):
        case "succeeded":
            try:
                return Done(result=result_of(job.id, standing), message="done by the ML service")
            except Invalid:
                return Failed(error=MlProtocolError(reason="the result is not where the job's results belong"))
        case "failed":
            return Failed(error=MlFailed(reason=reason_of(standing.error)))
    if standing.status.strip().lower() in UNFINISHED_WORDS and left > 0:
        return Wait(seconds=min(settings().ml_deadline_seconds, left), message="the ML service is still at it")
    return Failed(error=MlTimeout())


def _heard(job: JobInStep, request: Callable[[], T], *, limit: float, late: MillraceError | None) -> T | Later | Failed:
    """What ``request`` answers, if the circuit lets it through; else the job is put off, or given up after ``limit``
    seconds of that with the error ``late`` (None: that the service is not available).

    Raises:
        MlUnavailable: a failure that opened no circuit.
        MlRejected, MlProtocolError
    """
    circuit, left = circuits.ml(), limit - job.delayed
    if not circuit.admits(job.id):
        return _until_it_answers(circuit, left, MlUnavailable(reason="it did not answer others either"), late)
    try:
        answer = request()
    except MlUnavailable as error:
        if circuit.failed(job.id, error.retry_after):
            return _until_it_answers(circuit, left, error, late)
        if error.retry_after is None:
            raise
        if left <= 0:
            return Failed(error=late or error)
        # spread, so that those who were told the same moment do not all come back at it; it guards nothing
        seconds = error.retry_after * random.uniform(1.0, 1.25)  # noqa: S311
        return Later(seconds=min(seconds, left), message="the ML service has asked for patience", error=error)
    except (MlRejected, MlProtocolError):
        circuit.succeeded(job.id)  # it is there, whatever it says
        raise
    circuit.succeeded(job.id)
    return answer


def _until_it_answers(
    circuit: circuits.Circuit, left: float, error: MlUnavailable, late: MillraceError | None
) -> Later | Failed:
    if left <= 0:
        return Failed(error=late or error)
    return Later(seconds=left, message="waiting until the ML service answers again", circuit=circuit.name, error=error)


def tell_cancelled(job_id: str) -> None:
    """The task behind ``storage.dispatch.tell_cancelled``: let the ML service drop the job. Best effort."""
    if not circuits.ml().is_closed():
        _log.info("cancellation_not_told", job_id=job_id, error="the ML service does not answer at present")
        return
    try:
        ml.cancel(UUID(job_id))
    except (MlUnavailable, MlRejected, MlProtocolError) as error:
        _log.warning("cancellation_not_told", job_id=job_id, error=str(error))


def _submission(job: JobInStep) -> Submission:
    config = settings()
    key = objects.result_key(job.id, 1)  # always the same, so that a second write is harmless
    waiting = max(config.ml_deadline_seconds, config.ml_max_wait_seconds)
    seconds = min(int(waiting) + _MARGIN_SECONDS, _LONGEST_SIGNED)
    return Submission(
        job_uuid=str(job.id),
        input_object=job.file.key if job.file else "",
        output_object=key,
        profile=job.params.get("profile", config.ml_default_profile),
        threshold=job.params.get("threshold", config.ml_decision_threshold),
        input_url=objects.presign_get(job.file.key, seconds, download_name=job.file.name) if job.file else "",
        output_url=objects.presign_put(key, seconds),
        callback_url=f"{config.public_url}/api/v1/internal/jobs/{job.id}/completion",
    )


def _result(job_id: UUID, answer: Acceptance) -> ResultFile:
    if not answer.output_object.startswith(result_prefix(str(job_id))):
        raise MlProtocolError(reason="the result is not where the job's results belong")
    try:
        size = answer.file_size if answer.file_size is not None else objects.size_of(answer.output_object)
    except ObjectMissing:
        raise ResultMissing from None
    return ResultFile(key=answer.output_object, name=f"{job_id}.xlsx", size=size)


steps = {"submit": submit, "ask": ask}
tasks = {"inference.tell_cancelled": tell_cancelled}

"""The step `submit`: hand the job to the ML service, and wait for its completion without holding a worker."""

from uuid import UUID

from domain.errors import MlProtocolError
from domain.inference import Acceptance, Submission, result_prefix
from domain.pipelines import Context, Done, JobInStep, Outcome, ResultFile, Wait
from storage import objects
from storage.configuration import settings
from workers import ml

# Longer than the deadline, so that a service that finishes in the last minute can still deliver.
_MARGIN_SECONDS = 600


def submit(job: JobInStep, context: Context) -> Outcome:
    """POST the job to the ML service.

    The claim, committed before the POST, is what a completion needs to be accepted: it may come before the answer. The
    attempt's number is part of the idempotency key and stays the same when a worker dies, so a step done again after
    a crash is the same submission to the service.
    """
    if job.signal is not None:  # completed before an earlier delivery of this step came to its end
        return Done()
    submission = _submission(job)
    answer = ml.submit(submission, idempotency_key=f"{job.id}:{job.attempt}")
    if answer is None:
        return Wait(seconds=settings().ml_deadline_seconds, message="accepted by the ML service")
    return Done(result=_result(job.id, answer), message="done by the ML service")


def _submission(job: JobInStep) -> Submission:
    config = settings()
    key = objects.result_key(job.id, 1)  # always the same, so that a second write is harmless
    seconds = int(config.ml_deadline_seconds + _MARGIN_SECONDS)
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
    return ResultFile(
        key=answer.output_object,
        name=f"{job_id}.xlsx",
        size=answer.file_size if answer.file_size is not None else objects.size_of(answer.output_object),
    )


steps = {"submit": submit}

"""Finding a job for whoever asks: its owner or an admin; to everybody else it is not there."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request

from api.problems import language_of
from domain.accounts import Principal
from domain.errors import retold
from domain.errors.requests import NotFound
from domain.jobs import Attempt, Job
from storage.database import autocommit
from storage.jobs import views


def owner_of(principal: Principal) -> UUID | None:
    """Whose jobs the caller sees; None stands for everybody's."""
    return None if principal.is_admin else principal.id


def found(job_id: UUID, principal: Principal) -> Job:
    """Raises NotFound."""
    return found_with_keys(job_id, principal)[0]


def found_with_keys(job_id: UUID, principal: Principal) -> tuple[Job, str | None, str | None]:
    """The job with the object keys of its input and its result. Raises NotFound."""
    with autocommit() as connection:
        job = views.with_keys(connection, job_id, owner_of(principal))
    if job is None:
        raise NotFound(what="job")
    return job


def told(request: Request[Any, Any, Any], job: Job) -> Job:
    """The job with the sentence of its error in the language that is asked for; it is kept in English."""
    if job.error is None:
        return job
    message = retold(job.error.code, job.error.message, language_of(request))
    return msgspec.structs.replace(job, error=msgspec.structs.replace(job.error, message=message))


def told_attempt(request: Request[Any, Any, Any], attempt: Attempt) -> Attempt:
    """The same for one attempt."""
    if attempt.error is None:
        return attempt
    message = retold(attempt.error.code, attempt.error.message, language_of(request))
    return msgspec.structs.replace(attempt, error=msgspec.structs.replace(attempt.error, message=message))

"""Finding a job for whoever asks: its owner or an admin; to everybody else it is not there."""

from uuid import UUID

from domain.accounts import Principal
from domain.errors import NotFound
from domain.jobs import Job
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

"""Cancelling a job, running it again, and looking at how its steps went."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from sqlalchemy import Connection

from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.jobs.examples import CANCELLED, PARENT_ID, QUEUED
from api.jobs.ordering import create
from api.jobs.reading import found, owner_of, told_attempt
from api.objects import blocking
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.jobs import JobIsFinal
from domain.errors.requests import Conflict, NotFound
from domain.identity import new_id
from domain.jobs import AttemptPage, Job, Status
from domain.pipelines import named
from storage import dispatch, events
from storage.database import autocommit, transact
from storage.jobs import commands, views
from storage.jobs.orders import set_going


@post(
    "/jobs/{job_id:uuid}/cancel",
    tags=["jobs"],
    summary="Cancel a job",
    status_code=202,
    sync_to_thread=True,
    **documented(NotFound(what="job"), JobIsFinal(status=Status.SUCCEEDED), answer={"Ended at once": CANCELLED}),
)
def cancel_job(job_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Job:
    """A job nobody works on ends at once; else its worker leaves at its next checkpoint, within about a second, and
    nothing of the step it is in is kept. 409 `job_is_final` when the job has ended."""
    with autocommit() as connection:
        asked, moved = commands.cancel(connection, job_id, owner_of(principal))
    if not asked:
        raise JobIsFinal(status=found(job_id, principal).status)
    if moved is not None:
        events.announce([(moved.owner_id, moved.event)])
        dispatch.tell_cancelled(job_id, moved.kind, moved.event.data.get("stage"))
        if moved.backlog:
            dispatch.admit(moved.owner_id)
    return found(job_id, principal)


@post(
    "/jobs/{job_id:uuid}/retry",
    tags=["jobs"],
    summary="Run a job again",
    status_code=202,
    **documented(
        NotFound(what="job"),
        Conflict(reason="the job has not ended yet (it is processing); cancel it first"),
        answer={"Example": {**QUEUED, "parent_id": PARENT_ID}},
        headers={"Location": "The new job"},
    ),
)
async def retry_job(
    request: Request[Any, Any, Any],
    job_id: FromPath[UUID],
    principal: NamedDependency[Principal],
    idempotency_key: IdempotencyKey = None,
) -> Response[Job]:
    """A new job on the same file with the same parameters, and `parent_id` naming this one. 409 `conflict` while this
    one has not ended."""
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint(await request.body()))
        await blocking(_run_again, job_id, principal, once)
    return once.answer


def _run_again(job_id: UUID, principal: Principal, once: Once) -> None:
    job = found(job_id, principal)
    pipeline = named(dispatch.pipelines(), job.kind)  # one that is switched off has no steps
    first_step = pipeline.steps[0].name

    def ordering(connection: Connection) -> commands.Ordered:
        rerun = commands.rerun(
            connection, job_id, owner_of(principal), new_id(), first_step, takes_file=pipeline.takes_file
        )
        if rerun is None:
            raise NotFound(what="job")
        return create(connection, rerun, once)

    set_going(transact(ordering))


@get(
    "/jobs/{job_id:uuid}/attempts",
    tags=["jobs"],
    summary="How a job's steps went",
    sync_to_thread=True,
    **documented(NotFound(what="job")),
)
def list_attempts(
    request: Request[Any, Any, Any],
    job_id: FromPath[UUID],
    principal: NamedDependency[Principal],
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Attempts on a page")] = 100,
    after: Annotated[int, QueryParameter(ge=0, description="`next` of the page before")] = 0,
) -> AttemptPage:
    """Every attempt of every step with its outcome and error, in the order they ended; the running one last."""
    found(job_id, principal)
    with autocommit() as connection:
        numbered = views.attempts(connection, job_id, after=after, limit=limit + 1)
    return AttemptPage(
        items=[told_attempt(request, attempt) for _, attempt in numbered[:limit]],
        next=numbered[limit - 1][0] if len(numbered) > limit else None,
    )


routes = [cancel_job, retry_job, list_attempts]

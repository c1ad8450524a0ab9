"""One job and the list of them; its input file."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, delete, get, put, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET
from sqlalchemy import Connection

from api.downloads import documented_download, download
from api.jobs.examples import FAILED
from api.jobs.reading import found, found_with_keys, owner_of, told
from api.objects import blocking
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.jobs import JobNotReady
from domain.errors.requests import Invalid, NotFound
from domain.jobs import Job, JobChange, JobPage, Status
from storage import discarding, dispatch, events, objects
from storage.database import autocommit, transact
from storage.jobs import commands, views
from storage.jobs.transitions import Moved
from storage.webhooks import feed

_NO_JOB = NotFound(what="job")


@get("/jobs", tags=["jobs"], summary="Your jobs, newest first", sync_to_thread=True)
def list_jobs(
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    status: Annotated[Status | None, QueryParameter(description="Only jobs in this state")] = None,
    kind: Annotated[str | None, QueryParameter(description="Only jobs of this kind")] = None,
    text: Annotated[str | None, QueryParameter(max_length=255, description="Part of title or description")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Jobs on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> JobPage:
    """Filtered by what is given, all of it together. An admin sees everybody's."""
    with autocommit() as connection:
        jobs = views.page(
            connection, owner_of(principal), after=after, limit=limit + 1, status=status, kind=kind, words=text
        )
    return JobPage(
        items=[told(request, job) for job in jobs[:limit]], next=jobs[limit - 1].id if len(jobs) > limit else None
    )


@get(
    "/jobs/{job_id:uuid}",
    tags=["jobs"],
    summary="One job",
    sync_to_thread=True,
    **documented(_NO_JOB, answer={"Succeeded": {}, "Failed": FAILED}),
)
def read_job(request: Request[Any, Any, Any], job_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Job:
    """As it is now. To follow it, read `/events` below it instead of asking again and again. The message of its error
    comes in the language asked for."""
    return told(request, found(job_id, principal))


@put(
    "/jobs/{job_id:uuid}",
    tags=["jobs"],
    summary="Change a job's title and description",
    sync_to_thread=True,
    **documented(
        _NO_JOB,
        Invalid(field="title", reason="Expected `str` of length >= 1"),
        answer={"Example": {"description": "Second series, with contrast"}},
    ),
)
def change_job(job_id: FromPath[UUID], data: JSONBody[JobChange], principal: NamedDependency[Principal]) -> Job:
    """Only what is sent is changed; nothing else of a job can be."""
    with autocommit() as connection:
        commands.rename(
            connection,
            job_id,
            owner_of(principal),
            title=None if data.title is UNSET else data.title,
            description=None if data.description is UNSET else data.description,
            describe=data.description is not UNSET,
        )
    return found(job_id, principal)


@delete(
    "/jobs/{job_id:uuid}",
    tags=["jobs"],
    summary="Delete a job with its files",
    sync_to_thread=True,
    **documented(_NO_JOB),
)
def delete_job(job_id: FromPath[UUID], principal: NamedDependency[Principal]) -> None:
    """In whatever state: one that has not ended is cancelled first. Its streams are told so and end, as are webhooks;
    a worker that is at it leaves at its next checkpoint and nothing of its step is kept. A file uploaded by itself
    stays."""
    keys, ended = transact(lambda connection: _delete(connection, job_id, owner_of(principal)))
    if ended is not None:
        events.announce_last(ended.owner_id, ended.event)
        dispatch.tell_cancelled(job_id, ended.kind, ended.event.data.get("stage"))
        if ended.backlog:
            dispatch.admit(ended.owner_id)
    discarding.discard(keys, below=objects.result_prefix(job_id))


def _delete(connection: Connection, job_id: UUID, owner_id: UUID | None) -> tuple[list[str], Moved | None]:
    ended = commands.end(connection, job_id, owner_id)
    feed.collect_last(connection, job_id)
    keys = commands.delete(connection, job_id, owner_id)
    if keys is None:
        raise NotFound(what="job")
    return keys, ended


@route(
    "/jobs/{job_id:uuid}/file",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    tags=["jobs"],
    summary="Download a job's input",
    **documented_download(_NO_JOB, JobNotReady(what="file", status=Status.PENDING)),
)
async def read_input(
    request: Request[Any, Any, Any], job_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Response[Any]:
    """As an attachment under its own name; honours `Range`, `If-Range` and `If-None-Match`."""
    job, key, _ = await blocking(found_with_keys, job_id, principal)
    if job.file is None or key is None:
        raise JobNotReady(what="file", status=job.status)
    file = job.file
    return await download(request, key, file.name, file.size, file.sha256, file.content_type, sha256=file.sha256)


routes = [list_jobs, read_job, change_job, delete_job, read_input]

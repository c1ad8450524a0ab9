"""POST /jobs, and the file of a job that was ordered without one."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from sqlalchemy import Connection

from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.jobs.examples import PENDING, QUEUED
from api.jobs.reading import found
from api.objects import blocking
from api.openapi.operation import Content, documented
from api.uploads import ASKED, RAW, STREAMED, StoredObject, documented_upload, form, receive
from domain import digests
from domain.accounts import Principal
from domain.errors import MillraceError
from domain.errors.inference import UnknownProfile
from domain.errors.jobs import JobIsFinal
from domain.errors.requests import BodyTooLarge, Conflict, Invalid, MalformedRequest, NotFound, UnsupportedMedia
from domain.files import File
from domain.jobs import FINAL, Job, JobOrder, Status, read_order, wrong_order
from domain.pipelines import Pipeline, named
from storage import dispatch, files
from storage.configuration import settings
from storage.database import transaction
from storage.failpoints import reached
from storage.jobs import commands, views
from storage.jobs.orders import new_job, set_going, store

_MULTIPART = "multipart/form-data"
_JSON = "application/json"
_RAW = "application/octet-stream"
# What curl and browsers send when nobody has thought of a media type: a mistake more likely than a file.
_NOT_A_FILE = frozenset({"", "application/x-www-form-urlencoded"})
_EXPECTED = f"{_MULTIPART}, {_JSON} or the file itself under its own media type"
MAX_JSON = 64 * 1024  # bytes

_IN_QUERY = [name for name in JobOrder.__struct_fields__ if name != "filename"]


@post(
    "/jobs",
    tags=["jobs"],
    summary="Order a job",
    status_code=202,
    request_max_body_size=None,
    **documented(
        *STREAMED,
        NotFound(what="file"),
        UnsupportedMedia(expected=_EXPECTED, received="application/x-www-form-urlencoded"),
        Invalid(field="threshold", reason="Expected `float` <= 1.0"),
        UnknownProfile(field="profile", profile="x-ray", known="default"),
        takes={_MULTIPART: form(JobOrder, leave_out="filename"), _JSON: Content(schema=JobOrder), _RAW: RAW},
        asks={**ASKED, **{one: ("query", f"`{one}`, where the body is the file itself") for one in _IN_QUERY}},
        answer={"With its file": QUEUED, "Without": PENDING},
        headers={"Location": "The job"},
    ),
)
async def order_job(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], idempotency_key: IdempotencyKey = None
) -> Response[Job]:
    """Send `multipart/form-data` with `file` and the fields below, each optional; or the file itself as the body, and
    the fields as query parameters; or the same as JSON with the `filename` of an uploaded file in place of `file`. The
    answer comes once the job is safely stored; `Location` is the job, `/events` below it its live stream. Without a
    file it stays `pending` until one is attached."""
    async with idempotent(request, principal.id, idempotency_key) as once:
        if _media_type(request) == _JSON:
            order = await _read_json(request, once)
            ordered = await blocking(_order_with_uploaded, order, principal, once)
        else:
            ordered = await _order_with_sent(request, principal, once)
        await blocking(set_going, ordered)
    return once.answer


@put(
    "/jobs/{job_id:uuid}/file",
    tags=["jobs"],
    summary="Attach the file a job waits for",
    request_max_body_size=None,
    **documented_upload(
        NotFound(what="job"),
        Conflict(reason="the job already has its file"),
        JobIsFinal(status=Status.CANCELLED),
        answer={"Example": QUEUED},
    ),
)
async def attach_file(
    request: Request[Any, Any, Any], job_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Job:
    """The file as `multipart/form-data` or as the body itself. 409 `conflict` when it has its
    file already, `job_is_final` when it was cancelled, or expired, without one."""
    job = await blocking(found, job_id, principal)
    pipeline = named(dispatch.pipelines(), job.kind)
    async with receive(request, settings().max_upload_bytes, owner_id=principal.id, raw=True) as form:
        if form.file is None:
            raise Invalid(field="file", reason="there is no file in the form")
        stored = form.file
        ordered = await form.keep(lambda: _attach(job, stored, principal, pipeline))
    await blocking(set_going, ordered)
    return await blocking(found, job_id, principal)


async def _order_with_sent(request: Request[Any, Any, Any], principal: Principal, once: Once) -> commands.Ordered:
    """A form, or the file itself and the rest in the query."""
    if _media_type(request) in _NOT_A_FILE:
        raise UnsupportedMedia(expected=_EXPECTED, received=_media_type(request))
    in_query = {} if _media_type(request) == _MULTIPART else _read_query(request)
    limit = settings().max_upload_bytes
    async with receive(request, limit, owner_id=principal.id, raw=True, hash_only=once.answered) as form:
        form.fields.update(in_query)
        once.same_body(form.fingerprint())
        order, stored = read_order(form.fields), form.file
        if stored is None:
            return await blocking(_order_with_uploaded, order, principal, once)
        if order.filename is not None:
            raise Invalid(field="filename", reason="either a file is sent or `filename` names an uploaded one")
        job = new_job(order, principal.id, stored.name)
        return await form.keep(lambda: _store(job, stored, once))


def _read_query(request: Request[Any, Any, Any]) -> dict[str, str]:
    given = [(name, value) for name, value in request.query_params.multi_items() if name != "name"]
    fields = dict(given)
    for name, value in given:
        if fields[name] != value:
            raise Invalid(field=name, reason=f"`{name}` is given twice")
        if "\0" in value:  # no text column can hold it
            raise Invalid(field=name, reason=f"`{name}` holds a NUL character")
    return fields


def _media_type(request: Request[Any, Any, Any]) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_json(request: Request[Any, Any, Any], once: Once) -> JobOrder:
    wanted = digests.announced(request.headers.multi_items())
    body = await _bounded(request)
    digests.check(body, wanted)
    once.same_body(fingerprint(body))
    try:
        return msgspec.json.decode(body, type=JobOrder)
    except msgspec.ValidationError as error:
        raise wrong_order(error) from None
    except msgspec.DecodeError as error:
        raise MalformedRequest(reason=str(error)) from None


async def _bounded(request: Request[Any, Any, Any]) -> bytes:
    """The body, which the route itself does not limit: it also takes files. Raises BodyTooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON:
            raise BodyTooLarge(limit=MAX_JSON)
    return bytes(body)


def _store(job: commands.NewJob, stored: StoredObject, once: Once) -> commands.Ordered:
    reached("order.stored", job.id)
    with transaction() as connection:
        file = files.insert(connection, job.owner_id, stored)
        job = msgspec.structs.replace(job, input_file_id=file.id, owns_input=True)
        return create(connection, job, once)


def _order_with_uploaded(order: JobOrder, principal: Principal, once: Once) -> commands.Ordered:
    file: File | None = None
    if order.filename is not None:
        file = files.get(order.filename, principal.id)
    job = new_job(order, principal.id, file.name if file else None)
    if file is not None:
        job = msgspec.structs.replace(job, input_file_id=file.id)
    with transaction() as connection:
        return create(connection, job, once)


def create(connection: Connection, job: commands.NewJob, once: Once) -> commands.Ordered:
    """Store a new job and its answer in the caller's transaction; ``set_going`` follows after the commit."""
    ordered = store(connection, job)
    location = f"/api/v1/jobs/{job.id}"
    once.record(
        connection, Response(views.one(connection, job.id, None), status_code=202, headers={"Location": location})
    )
    return ordered


def _attach(job: Job, stored: StoredObject, principal: Principal, pipeline: Pipeline) -> commands.Ordered:
    config = settings()
    reached("order.stored", job.id)
    with transaction() as connection:
        owner_id = views.owner(connection, job.id)
        if owner_id is None:
            raise NotFound(what="job")
        file = files.insert(connection, owner_id, stored)
        ordered = commands.attach(
            connection,
            job.id,
            owner_id,
            file.id,
            owns_input=True,
            first_step=pipeline.steps[0].name,
            limit=config.owner_running_jobs,
            republish=config.redispatch_seconds,
        )
        if ordered is None:
            raise _why_not(connection, job.id)
        return ordered


def _why_not(connection: Connection, job_id: UUID) -> MillraceError:
    """Why a job that is there takes no file."""
    job = views.one(connection, job_id, None)
    if job is None:
        return NotFound(what="job")
    if job.file is None and job.status in FINAL:
        return JobIsFinal(status=job.status)
    return Conflict(reason="the job already has its file")


routes = [order_job, attach_file]

"""POST /jobs, and the file of a job that was ordered without one."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.jobs.reading import found
from api.objects import blocking
from api.uploads import StoredObject, receive
from domain.accounts import Principal
from domain.errors import Conflict, Invalid, MalformedRequest, UnsupportedMedia
from domain.files import File
from domain.identity import new_id
from domain.jobs import Event, Job, JobOrder
from domain.pipelines import Pipeline, named
from storage import dispatch, events, files
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.jobs import commands

_MULTIPART = "multipart/form-data"
_JSON = "application/json"


@post("/jobs", tags=["jobs"], summary="Order a job", status_code=202, request_max_body_size=None)
async def order_job(request: Request[Any, Any, Any], principal: NamedDependency[Principal]) -> Response[Job]:
    """Send `multipart/form-data` with `file`, `title`, `description`, `kind`, `profile`, `threshold`, each optional, or
    the same as JSON with `filename` in place of `file`. The answer comes once the job is safely stored; `Location` is
    the job, `/events` below it its live stream. Without a file it stays `pending` until one is attached."""
    if _media_type(request) == _MULTIPART:
        async with receive(request, settings().max_upload_bytes) as form:
            order = _read_form(form.fields)
            pipeline, job = _new_job(order, principal, form.file.name if form.file else None)
            stored = form.file
            event = await form.keep(lambda: _store(job, stored))
    else:
        order = await _read_json(request)
        event, pipeline, job = await blocking(_order_with_uploaded, order, principal)
    await _after(event, pipeline if event.type == "queued" else None)
    answer = await blocking(found, job.id, principal)
    return Response(answer, status_code=202, headers={"Location": f"/api/v1/jobs/{job.id}"})


@put("/jobs/{job_id:uuid}/file", tags=["jobs"], summary="Attach the file a job waits for", request_max_body_size=None)
async def attach_file(
    request: Request[Any, Any, Any], job_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Job:
    """The file as `multipart/form-data` or as the body itself. 409 `conflict` when the job is not `pending`."""
    job = await blocking(found, job_id, principal)
    pipeline = named(dispatch.pipelines(), job.kind)
    async with receive(request, settings().max_upload_bytes, raw=True) as form:
        if form.file is None:
            raise Invalid(field="file", reason="there is no file in the form")
        stored = form.file
        event = await form.keep(lambda: _attach(job_id, stored, principal, pipeline))
    await _after(event, pipeline)
    return await blocking(found, job_id, principal)


def _media_type(request: Request[Any, Any, Any]) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _read_form(fields: dict[str, str]) -> JobOrder:
    given = {name: value for name, value in fields.items() if value != ""}
    try:
        return msgspec.convert(given, JobOrder, strict=False)
    except msgspec.ValidationError as error:
        raise _named(error) from None


async def _read_json(request: Request[Any, Any, Any]) -> JobOrder:
    if _media_type(request) != _JSON:
        raise UnsupportedMedia(expected=f"{_MULTIPART} or {_JSON}", received=_media_type(request))
    try:
        return msgspec.json.decode(await request.body(), type=JobOrder)
    except msgspec.ValidationError as error:
        raise _named(error) from None
    except msgspec.DecodeError as error:
        raise MalformedRequest(reason=str(error)) from None


def _named(error: msgspec.ValidationError) -> Invalid:
    """msgspec ends its sentence with the place: "... - at `$.threshold`"."""
    reason, _, place = str(error).partition(" - at `$.")
    return Invalid(field=place.rstrip("`") or None, reason=reason)


def _new_job(order: JobOrder, principal: Principal, file_name: str | None) -> tuple[Pipeline, commands.NewJob]:
    pipeline = named(dispatch.pipelines(), order.kind)
    ordered = {"profile": order.profile, "threshold": order.threshold}
    params = pipeline.read_params({name: value for name, value in ordered.items() if value is not None}, settings())
    job = commands.NewJob(
        id=new_id(),
        owner_id=principal.id,
        kind=pipeline.name,
        title=order.title or file_name or "untitled",
        description=order.description,
        params=params,
        first_step=pipeline.steps[0].name,
    )
    return pipeline, job


def _store(job: commands.NewJob, stored: StoredObject | None) -> Event:
    with transaction() as connection:
        if stored is not None:
            file = files.insert(connection, job.owner_id, stored)
            job = msgspec.structs.replace(job, input_file_id=file.id, owns_input=True)
        return commands.create(connection, job, settings().redispatch_seconds)


def _order_with_uploaded(order: JobOrder, principal: Principal) -> tuple[Event, Pipeline, commands.NewJob]:
    file: File | None = None
    if order.filename is not None:
        file = files.get(order.filename, principal.id)
    pipeline, job = _new_job(order, principal, file.name if file else None)
    if file is not None:
        job = msgspec.structs.replace(job, input_file_id=file.id)
    with autocommit() as connection:
        return commands.create(connection, job, settings().redispatch_seconds), pipeline, job


def _attach(job_id: UUID, stored: StoredObject, principal: Principal, pipeline: Pipeline) -> Event:
    with transaction() as connection:
        file = files.insert(connection, principal.id, stored)
        event = commands.attach(
            connection,
            job_id,
            file.id,
            owns_input=True,
            first_step=pipeline.steps[0].name,
            republish=settings().redispatch_seconds,
        )
        if event is None:
            raise Conflict(reason="the job already has its file")
        return event


async def _after(event: Event, pipeline: Pipeline | None) -> None:
    """What follows the commit: announce it, and publish the job. Neither can undo it."""

    def tell() -> None:
        if pipeline is not None:
            dispatch.publish_or_leave_to_sweep(event.job_id, pipeline.name, pipeline.steps[0].name)
        events.announce([event])

    await blocking(tell)


routes = [order_job, attach_file]

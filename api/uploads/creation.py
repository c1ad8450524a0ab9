"""The beginning of a resumable upload."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, post
from litestar.di import NamedDependency

from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.objects import blocking
from api.openapi.operation import documented
from api.uploads.protocol import AT, CHECKSUM, CHUNK, HERE, MADE, RESUMABLE, TAKING, at, made, media_type
from api.uploads.taking import finish, receive
from domain import uploads as tus
from domain.accounts import Principal
from domain.errors import NOTHING_KEPT, MillraceError
from domain.errors.inference import UnknownProfile
from domain.errors.neighbours import ShuttingDown
from domain.errors.requests import BodyTooLarge, Conflict, Invalid, NotFound
from domain.errors.uploads import UploadTooSlow
from domain.identity import new_id
from domain.uploads import MEDIA_TYPE, Upload
from storage.configuration import settings
from storage.database import transaction
from storage.jobs.orders import new_job
from storage.uploads import creation, finishing, receiving, removal, views
from storage.uploads.creation import NewUpload
from storage.uploads.receiving import Standing

# what an upload is, as far as its beginning says it
SAYING = ("upload-length", "upload-defer-length", "upload-metadata", "upload-concat")


@post(
    "/",
    tags=["uploads"],
    summary="Begin a resumable upload",
    request_max_body_size=None,
    **documented(
        NotFound(what="upload"),
        Conflict(reason="the upload is not complete"),
        Invalid(field="threshold", reason="Expected `float` <= 1.0"),
        UnknownProfile(field="profile", profile="x-ray", known="default"),
        *TAKING,
        takes=CHUNK,
        asks={
            **RESUMABLE,
            "Upload-Length": ("header", "Bytes of the whole"),
            "Upload-Defer-Length": ("header", "`1`, where the length is not known yet"),
            "Upload-Metadata": ("header", "`filename <base64>,filetype <base64>`, and for a job `job <base64>`"),
            "Upload-Concat": ("header", "`partial`, or `final;` and the URLs of the partial uploads"),
            **CHECKSUM,
        },
        headers={"Location": "The upload", **AT, **MADE},
        answer={"Example": {"state": "receiving", "offset": 0, "file": None}},
    ),
)
async def create_upload(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], idempotency_key: IdempotencyKey = None
) -> Response[Upload]:
    """The body may hold the first bytes (`application/offset+octet-stream`) or be empty. The metadata may order a job
    for the moment the upload is complete: `job` is its kind, `title`, `description`, `profile`, `threshold` and
    `priority` are those of `POST /jobs`. An `Idempotency-Key` speaks of the headers alone: sent again with it, the
    answer is the same upload, as it was before its first byte."""
    sources = tus.sources(request.headers.get("upload-concat"))
    checksum = tus.checksum(request.headers.get("upload-checksum"))
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint("\n".join(request.headers.get(name, "") for name in SAYING).encode()))
        new = _new_upload(request, principal, sources)
        standing = await blocking(_create, new, sources, once)
    if once.answered:
        return once.answer
    if standing.state == "finishing":
        if held := await blocking(finishing.take, new.id):
            await finish(held, None)
    elif media_type(request) == MEDIA_TYPE:
        try:
            await receive(request, new.id, principal, 0, None, checksum)
        except MillraceError as error:
            if idempotency_key is None:  # nobody was told its URL, nor can be
                await blocking(removal.end, new.id, principal.id)
                if isinstance(error, ShuttingDown):
                    raise ShuttingDown(kept=NOTHING_KEPT, retry_after=error.retry_after) from error
                if isinstance(error, UploadTooSlow):
                    raise UploadTooSlow(**{**error.details, "kept": NOTHING_KEPT}) from error
            raise
    return await blocking(lambda: _created(receiving.look(new.id, principal.id)))


def _new_upload(request: Request[Any, Any, Any], principal: Principal, sources: list[UUID] | None) -> NewUpload:
    headers = request.headers
    said = headers.get("upload-metadata", "")
    length = None
    if not sources:
        length = tus.length(headers.get("upload-length"), headers.get("upload-defer-length"))
    if length is not None and length > (limit := settings().max_upload_bytes):
        raise BodyTooLarge(limit=limit)
    metadata = tus.metadata(said)
    order = None if sources == [] else tus.order_of(metadata)
    return NewUpload(
        id=new_id(),
        owner_id=principal.id,
        length=length,
        metadata=said,
        partial=sources == [],
        job=None if order is None else new_job(order, principal.id, tus.name_of(metadata)),
    )


def _create(new: NewUpload, sources: list[UUID] | None, once: Once) -> Standing:
    with transaction() as connection:
        standing = creation.create(connection, new, sources or [])
        once.record(connection, _created(standing))
        return standing


def _created(standing: Standing) -> Response[Upload]:
    upload = views.view(standing)
    told = {"Location": f"{HERE}/{standing.id}", **at(standing), **made(upload)}
    return Response(upload, status_code=201, headers=told)

"""Resumable uploads over HTTP: tus 1.0.0 (https://tus.io/protocols/resumable-upload) and what it comes to as JSON."""

import asyncio
from contextlib import aclosing
from datetime import UTC
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import structlog
from litestar import Request, Response, Router, delete, get, head, patch, post, route
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from api.objects import blocking, gateway, unbroken
from api.openapi.operation import BINARY, Content, documented
from api.security import PUBLIC
from api.uploads import verifying
from api.uploads.body import Body
from api.uploads.resuming import Keeper, beating
from domain import uploads as tus
from domain.accounts import Principal
from domain.errors import (
    BodyTooLarge,
    ChecksumMismatch,
    Conflict,
    Invalid,
    MethodNotAllowed,
    MillraceError,
    NotFound,
    StorageUnavailable,
    TusVersionUnsupported,
    UnknownProfile,
    UnsupportedMedia,
    UploadExpired,
    UploadHeader,
    UploadIsFinal,
    UploadLocked,
    UploadOffsetMismatch,
)
from domain.identity import new_id
from domain.uploads import MEDIA_TYPE, Upload
from storage.configuration import settings
from storage.jobs.orders import new_job
from storage.uploads import finishing, receiving, removal, views
from storage.uploads.receiving import Held, NewUpload, Standing

log = structlog.get_logger(__name__)

_HERE = "/api/v1/uploads"
_NO_UPLOAD = (NotFound(what="upload"), UploadExpired())
_VERSION = TusVersionUnsupported(supported=tus.VERSION)
_CHUNK = {MEDIA_TYPE: Content(schema={**BINARY, "description": "The next bytes"}, example="@scans.zip")}
_RESUMABLE: dict[str, tuple[Any, str]] = {"Tus-Resumable": ("header", "`1.0.0`; without it the answer is 412")}
_CHECKSUM: dict[str, tuple[Any, str]] = {
    "Upload-Checksum": (
        "header",
        "`sha256 <base64>`, also sha1, md5: the body is kept whole and true, or not at all",
    )
}
_AT = {"Upload-Offset": "Bytes that are kept", "Upload-Expires": "Until when, if no further bytes come"}
_MADE = {
    "Millrace-File": "The `filename` of the file, once the upload is complete",
    "Millrace-Job": "The `id` of the job it was ordered with, once the upload is complete",
}
_TAKING = (
    UploadHeader(field="Upload-Checksum", reason="the algorithms are sha1, sha256, md5"),
    BodyTooLarge(limit=5 * 1024**3),
    ChecksumMismatch(algorithm="sha256"),
    StorageUnavailable(),
    _VERSION,
)


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
        *_TAKING,
        takes=_CHUNK,
        asks={
            **_RESUMABLE,
            "Upload-Length": ("header", "Bytes of the whole"),
            "Upload-Defer-Length": ("header", "`1`, where the length is not known yet"),
            "Upload-Metadata": ("header", "`filename <base64>,filetype <base64>`, and for a job `job <base64>`"),
            "Upload-Concat": ("header", "`partial`, or `final;` and the URLs of the partial uploads"),
            **_CHECKSUM,
        },
        headers={"Location": "The upload", **_AT, **_MADE},
        answer={"Example": {"state": "receiving", "offset": 0, "file": None}},
    ),
)
async def create_upload(request: Request[Any, Any, Any], principal: NamedDependency[Principal]) -> Response[Upload]:
    """The body may hold the first bytes (`application/offset+octet-stream`) or be empty. The metadata may order a job
    for the moment the upload is complete: `job` is its kind, `title`, `description`, `profile`, `threshold` and
    `priority` are those of `POST /jobs`."""
    headers = request.headers
    said = headers.get("upload-metadata", "")
    sources = tus.sources(headers.get("upload-concat"))
    length = None
    if not sources:
        length = tus.length(headers.get("upload-length"), headers.get("upload-defer-length"))
    if length is not None and length > (limit := settings().max_upload_bytes):
        raise BodyTooLarge(limit=limit)
    checksum = tus.checksum(headers.get("upload-checksum"))
    metadata = tus.metadata(said)
    order = None if sources == [] else tus.order_of(metadata)
    new = NewUpload(
        id=new_id(),
        owner_id=principal.id,
        length=length,
        metadata=said,
        partial=sources == [],
        job=None if order is None else new_job(order, principal.id, tus.name_of(metadata)),
    )
    if sources:
        await blocking(receiving.create_final, new, sources)
    else:
        await blocking(receiving.create, new)
    if sources or length == 0:
        if held := await blocking(finishing.take, new.id):
            await _finish(held, None)
    elif _media_type(request) == MEDIA_TYPE:
        try:
            await _receive(request, new.id, principal, 0, None, checksum)
        except MillraceError:
            remains = await blocking(removal.terminate, new.id, principal.id)  # its URL was never told
            await blocking(removal.sweep_out, [remains])
            raise
    standing = await blocking(receiving.look, new.id, principal.id)
    upload = await blocking(views.view, standing)
    told = {"Location": f"{_HERE}/{new.id}", **_at(standing), **_made(upload)}
    return Response(upload, status_code=201, headers=told)


@head(
    "/{upload_id:uuid}",
    tags=["uploads"],
    summary="Where to go on",
    **documented(
        *_NO_UPLOAD,
        _VERSION,
        asks=_RESUMABLE,
        headers={
            **_AT,
            "Upload-Length": "Bytes of the whole, or `Upload-Defer-Length: 1`",
            "Upload-Metadata": "As it was sent",
            "Upload-Concat": "Of partial and final uploads",
            **_MADE,
        },
    ),
)
async def head_upload(
    request: Request[Any, Any, Any], upload_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Response[None]:
    """A request that still waits for a client that is gone is ended first, so that `Upload-Offset` is what a PATCH can
    begin with."""
    return await _head(upload_id, principal)


@patch(
    "/{upload_id:uuid}",
    tags=["uploads"],
    summary="Send the next bytes",
    status_code=204,
    request_max_body_size=None,
    **documented(
        *_NO_UPLOAD,
        UploadIsFinal(),
        UploadOffsetMismatch(offset=5242880, field="Upload-Offset"),
        Conflict(reason="the upload is complete"),
        UnsupportedMedia(expected=MEDIA_TYPE, received="text/plain"),
        UploadLocked(),
        *_TAKING,
        takes=_CHUNK,
        asks={
            **_RESUMABLE,
            "Upload-Offset": ("header", "Where the bytes belong: as HEAD says it"),
            "Upload-Length": ("header", "Bytes of the whole, where they were not known at the beginning"),
            **_CHECKSUM,
        },
        headers={**_AT, **_MADE},
    ),
)
async def patch_upload(
    request: Request[Any, Any, Any], upload_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Response[None]:
    """What has come is kept even when the connection breaks. With the last byte the file is made, and the job that was
    ordered: once, however often the last request is sent."""
    return await _patch(request, upload_id, principal)


@delete(
    "/{upload_id:uuid}",
    tags=["uploads"],
    summary="End an upload",
    **documented(NotFound(what="upload"), UploadLocked(), _VERSION, asks=_RESUMABLE),
)
async def delete_upload(
    request: Request[Any, Any, Any], upload_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> None:
    """What was sent is deleted. The file of a complete upload stays; it is deleted as a file."""
    await _delete(upload_id, principal)


@post(
    "/{upload_id:uuid}",
    tags=["uploads"],
    summary="PATCH, HEAD or DELETE by another name",
    status_code=204,
    request_max_body_size=None,
    **documented(
        *_NO_UPLOAD,
        MethodNotAllowed(method="POST"),
        UploadIsFinal(),
        UploadOffsetMismatch(offset=5242880, field="Upload-Offset"),
        UnsupportedMedia(expected=MEDIA_TYPE, received="text/plain"),
        UploadLocked(),
        *_TAKING,
        takes=_CHUNK,
        asks={
            **_RESUMABLE,
            "X-HTTP-Method-Override": ("header", "`PATCH`, `HEAD` or `DELETE`"),
            "Upload-Offset": ("header", "As for PATCH"),
        },
        headers={**_AT, **_MADE},
    ),
)
async def override_upload(
    request: Request[Any, Any, Any], upload_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Response[None]:
    """For clients behind something that lets only GET and POST through: the method is `X-HTTP-Method-Override`."""
    match request.headers.get("x-http-method-override", "").upper():
        case "PATCH":
            return await _patch(request, upload_id, principal)
        case "HEAD":
            return await _head(upload_id, principal)
        case "DELETE":
            await _delete(upload_id, principal)
            return Response(None, status_code=204)
    raise MethodNotAllowed(method="POST")


@get("/{upload_id:uuid}", tags=["uploads"], summary="A resumable upload", **documented(*_NO_UPLOAD))
async def get_upload(upload_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Response[Upload]:
    """How it stands, its file and its job; for anybody who does not speak tus."""
    upload = await blocking(views.view, await blocking(receiving.look, upload_id, principal.id))
    return Response(upload, headers={"Cache-Control": "no-store"})


@route(["/", "/{upload_id:uuid}"], http_method=[HttpMethod.OPTIONS], status_code=204, include_in_schema=False, **PUBLIC)
async def options() -> Response[None]:
    """What the server can do."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": ",".join(tus.EXTENSIONS),
        "Tus-Max-Size": str(settings().max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
    }
    return Response(None, status_code=204, headers=headers)


# ---------------------------------------------------------------- the methods


async def _head(upload_id: UUID, principal: Principal) -> Response[None]:
    standing = await _let_go(upload_id, principal.id)
    upload = await blocking(views.view, standing)
    headers = {"Cache-Control": "no-store", **_at(standing), **_made(upload)}
    if standing.length is None:
        headers["Upload-Defer-Length"] = "1"
    else:
        headers["Upload-Length"] = str(standing.length)
    if standing.metadata:
        headers["Upload-Metadata"] = standing.metadata
    if standing.partial:
        headers["Upload-Concat"] = "partial"
    if standing.sources is not None:
        headers["Upload-Concat"] = "final;" + " ".join(f"{_HERE}/{source}" for source in standing.sources)
    return Response(None, status_code=200, headers=headers)


async def _let_go(upload_id: UUID, owner_id: UUID) -> Standing:
    """How the upload stands, once no request is at work on it that only waits for a client; one whose process is dead
    holds it no longer than its lease."""
    standing = await blocking(receiving.look, upload_id, owner_id)
    if not standing.claimed or standing.state != "receiving":
        return standing
    standing = await blocking(receiving.ask, upload_id, owner_id)
    async with asyncio.timeout(settings().lease_seconds + 1) as patience:
        while standing.claimed and standing.asked and not patience.expired():
            await asyncio.sleep(0.1)
            standing = await blocking(receiving.look, upload_id, owner_id)
    return standing


async def _patch(request: Request[Any, Any, Any], upload_id: UUID, principal: Principal) -> Response[None]:
    if (received := _media_type(request)) != MEDIA_TYPE:
        raise UnsupportedMedia(expected=MEDIA_TYPE, received=received)
    offset = tus.number("Upload-Offset", request.headers.get("upload-offset"))
    if offset is None:
        raise UploadHeader(field="Upload-Offset", reason="it is missing")
    length = tus.number("Upload-Length", request.headers.get("upload-length"))
    checksum = tus.checksum(request.headers.get("upload-checksum"))
    await _receive(request, upload_id, principal, offset, length, checksum)
    standing = await blocking(receiving.look, upload_id, principal.id)
    upload = await blocking(views.view, standing)
    return Response(None, status_code=204, headers={**_at(standing), **_made(upload)})


async def _receive(
    request: Request[Any, Any, Any],
    upload_id: UUID,
    principal: Principal,
    offset: int,
    length: int | None,
    checksum: tuple[str, bytes] | None,
) -> None:
    """Keep the body, and finish the upload if that was the rest."""
    body = Body(request, settings().max_upload_bytes)
    gate = gateway()
    with gate.upload():
        held, standing = await blocking(receiving.claim, upload_id, principal.id, offset, length, body.length)
        body.limit = receiving.room(standing)
        try:
            keeper = Keeper(gate, held, standing)
            async with beating(held, keeper), aclosing(body.chunks()) as pieces:
                if checksum is None:
                    await keeper.keep(pieces)
                else:
                    async with aclosing(verifying.verified(gate, keeper, body, pieces, checksum)) as verified:
                        await keeper.keep(verified)
            if keeper.whole:
                await _finish(held, keeper.sha256())
        finally:
            await unbroken(blocking(receiving.release, held))


async def _finish(held: Held, sha256: str | None) -> None:
    try:
        await unbroken(blocking(finishing.finish, held, sha256))
    except MillraceError as error:  # it has every byte: the sweep makes its file
        log.warning("upload_not_finished", upload_id=str(held.id), error=error.code)
        await blocking(receiving.release, held)


async def _delete(upload_id: UUID, principal: Principal) -> None:
    remains = await blocking(removal.terminate, upload_id, principal.id)
    await blocking(removal.sweep_out, [remains])


# ---------------------------------------------------------------- headers


def _at(standing: Standing) -> dict[str, str]:
    expires = format_datetime(standing.expires_at.astimezone(UTC), usegmt=True)
    return {"Upload-Offset": str(standing.received), "Upload-Expires": expires}


def _made(upload: Upload) -> dict[str, str]:
    made = {"Millrace-File": upload.file.filename} if upload.file else {}
    return made | ({"Millrace-Job": str(upload.job_id)} if upload.job_id else {})


def _media_type(request: Request[Any, Any, Any]) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class TusHeader(ASGIMiddleware):
    """Every answer says the version of the protocol, refusals too."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        said = {"Tus-Resumable": tus.VERSION, "Tus-Version": tus.VERSION}
        scope["state"].setdefault("headers", {}).update(said)
        await next_app(scope, receive, send)


def speaks_tus(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Raises TusVersionUnsupported; GET, which is not of the protocol, and OPTIONS need no version."""
    if connection.scope.get("method") in ("GET", "OPTIONS"):
        return
    if connection.headers.get("tus-resumable") != tus.VERSION:
        raise TusVersionUnsupported(supported=tus.VERSION)


routes = [
    Router(
        "/uploads",
        # OPTIONS first: Litestar makes its own for a path that has none yet
        route_handlers=[
            options, create_upload, head_upload, patch_upload, delete_upload, override_upload, get_upload,
        ],
        middleware=[TusHeader()],
        guards=[speaks_tus],
    )
]  # fmt: skip

"""Resumable uploads over HTTP: tus 1.0.0 (https://tus.io/protocols/resumable-upload) and what it comes to as JSON."""

import asyncio
from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, delete, get, head, patch, post, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath

from api.objects import blocking
from api.openapi.operation import documented
from api.security import PUBLIC
from api.uploads.creation import create_upload
from api.uploads.protocol import (
    AT,
    CHECKSUM,
    CHUNK,
    HERE,
    MADE,
    NO_UPLOAD,
    RESUMABLE,
    TAKING,
    VERSION,
    TusHeader,
    at,
    made,
    media_type,
    speaks_tus,
)
from api.uploads.taking import receive
from domain import uploads as tus
from domain.accounts import Principal
from domain.errors.requests import Conflict, MethodNotAllowed, NotFound, UnsupportedMedia
from domain.errors.uploads import UploadHeader, UploadIsFinal, UploadLocked, UploadOffsetMismatch
from domain.uploads import MEDIA_TYPE, Upload
from storage.configuration import settings
from storage.uploads import receiving, removal, views
from storage.uploads.receiving import Standing


@head(
    "/{upload_id:uuid}",
    tags=["uploads"],
    summary="Where to go on",
    **documented(
        *NO_UPLOAD,
        VERSION,
        asks=RESUMABLE,
        headers={
            **AT,
            "Upload-Length": "Bytes of the whole, or `Upload-Defer-Length: 1`",
            "Upload-Metadata": "As it was sent",
            "Upload-Concat": "Of partial and final uploads",
            **MADE,
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
        *NO_UPLOAD,
        UploadIsFinal(),
        UploadOffsetMismatch(offset=5242880, field="Upload-Offset"),
        Conflict(reason="the upload is complete"),
        UnsupportedMedia(expected=MEDIA_TYPE, received="text/plain"),
        UploadLocked(),
        *TAKING,
        takes=CHUNK,
        asks={
            **RESUMABLE,
            "Upload-Offset": ("header", "Where the bytes belong: as HEAD says it"),
            "Upload-Length": ("header", "Bytes of the whole, where they were not known at the beginning"),
            **CHECKSUM,
        },
        headers={**AT, **MADE},
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
    **documented(NotFound(what="upload"), UploadLocked(), VERSION, asks=RESUMABLE),
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
        *NO_UPLOAD,
        MethodNotAllowed(method="POST"),
        UploadIsFinal(),
        UploadOffsetMismatch(offset=5242880, field="Upload-Offset"),
        UnsupportedMedia(expected=MEDIA_TYPE, received="text/plain"),
        UploadLocked(),
        *TAKING,
        takes=CHUNK,
        asks={
            **RESUMABLE,
            "X-HTTP-Method-Override": ("header", "`PATCH`, `HEAD` or `DELETE`"),
            "Upload-Offset": ("header", "As for PATCH"),
        },
        headers={**AT, **MADE},
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


@get("/{upload_id:uuid}", tags=["uploads"], summary="A resumable upload", **documented(*NO_UPLOAD))
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
    headers = {"Cache-Control": "no-store", **at(standing), **made(upload)}
    if standing.length is None:
        headers["Upload-Defer-Length"] = "1"
    else:
        headers["Upload-Length"] = str(standing.length)
    if standing.metadata:
        headers["Upload-Metadata"] = standing.metadata
    if standing.partial:
        headers["Upload-Concat"] = "partial"
    if standing.sources is not None:
        headers["Upload-Concat"] = "final;" + " ".join(f"{HERE}/{source}" for source in standing.sources)
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
    if (received := media_type(request)) != MEDIA_TYPE:
        raise UnsupportedMedia(expected=MEDIA_TYPE, received=received)
    offset = tus.number("Upload-Offset", request.headers.get("upload-offset"))
    if offset is None:
        raise UploadHeader(field="Upload-Offset", reason="it is missing")
    length = tus.number("Upload-Length", request.headers.get("upload-length"))
    checksum = tus.checksum(request.headers.get("upload-checksum"))
    await receive(request, upload_id, principal, offset, length, checksum)
    standing = await blocking(receiving.look, upload_id, principal.id)
    upload = await blocking(views.view, standing)
    return Response(None, status_code=204, headers={**at(standing), **made(upload)})


async def _delete(upload_id: UUID, principal: Principal) -> None:
    await blocking(removal.end, upload_id, principal.id)


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

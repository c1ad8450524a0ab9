"""A user's own files: uploaded, listed, downloaded, deleted."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import structlog
from litestar import Request, Response, delete, get, post, put, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath, QueryParameter

from api import objects as gateways
from api.downloads import download
from api.objects import blocking
from api.uploads import receive
from domain.accounts import Principal
from domain.errors import Invalid, MillraceError
from domain.files import File, FilePage, FileUrl
from storage import files, objects
from storage.configuration import settings

log = structlog.get_logger(__name__)


@post("/upload", tags=["files"], summary="Upload a file", request_max_body_size=None)
async def upload(request: Request[Any, Any, Any], principal: NamedDependency[Principal]) -> Response[File]:
    """As `multipart/form-data` with one file, or the file itself as the body (any other content type), then named by
    `Content-Disposition` or the query parameter `name`. It goes straight to the object storage; at most
    `MAX_UPLOAD_BYTES` of body. `type` is judged by the content, not by the name."""
    return await _upload(request, principal)


@put("/upload", tags=["files"], summary="Upload a file as the body", status_code=201, request_max_body_size=None)
async def upload_body(request: Request[Any, Any, Any], principal: NamedDependency[Principal]) -> Response[File]:
    """The same as POST, for clients that put files."""
    return await _upload(request, principal)


@get("/files", tags=["files"], summary="Your files, newest first", sync_to_thread=True)
def list_files(
    principal: NamedDependency[Principal],
    name: Annotated[str | None, QueryParameter(max_length=255, description="Part of the name, in any case")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> FilePage:
    return files.page(principal.id, limit, after, name)


@route(
    "/download/{filename:str}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    tags=["files"],
    summary="Download a file",
)
async def download_file(
    request: Request[Any, Any, Any], filename: FromPath[str], principal: NamedDependency[Principal]
) -> Response[Any]:
    """As an attachment under its own name; honours `Range`, `If-Range` and `If-None-Match`."""
    file, key = await blocking(files.locate, filename, _owner(principal))
    return await download(request, key, file.name, file.size, file.sha256, file.content_type)


@get("/files/{filename:str}/url", tags=["files"], summary="A URL that reads the file without a token")
async def file_url(filename: FromPath[str], principal: NamedDependency[Principal]) -> Response[FileUrl]:
    """For `PRESIGNED_URL_SECONDS`, straight from the object storage. Whoever has it can read the file."""
    file, key = await blocking(files.locate, filename, _owner(principal))
    seconds = settings().presigned_url_seconds
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    url = await blocking(objects.presign_get, key, seconds, file.name, public=True)
    return Response(FileUrl(url=url, expires_at=expires_at), headers={"Cache-Control": "no-store"})


@delete("/files/{filename:str}", tags=["files"], summary="Delete a file", sync_to_thread=True)
def delete_file(filename: FromPath[str], principal: NamedDependency[Principal]) -> None:
    """409 `file_in_use` while a job names it."""
    key = files.delete(filename, _owner(principal))
    try:
        objects.delete([key])
    except MillraceError:  # the file is gone for its owner all the same; what is left costs only space
        log.warning("an object without a row stays", key=key)


async def _upload(request: Request[Any, Any, Any], principal: Principal) -> Response[File]:
    async with receive(request, settings().max_upload_bytes, raw=True) as form:
        stored = form.file
        if stored is None:
            raise Invalid(field="file", reason="there is no file in the form")
        file = await form.keep(lambda: files.create(principal.id, stored))
    return Response(file, status_code=201, headers={"Location": f"/api/v1/download/{file.filename}"})


def _owner(principal: Principal) -> UUID | None:
    return None if principal.is_admin else principal.id


routes = [upload, upload_body, list_files, download_file, file_url, delete_file]
lifespan = [gateways.lifespan]

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
from api.downloads import documented_download, download
from api.idempotency import IdempotencyKey, Once, idempotent
from api.objects import blocking
from api.openapi.operation import documented
from api.uploads import StoredObject, documented_upload, receive
from domain.accounts import Principal
from domain.errors.requests import Invalid, NotFound
from domain.errors.uploads import FileInUse
from domain.files import File, FilePage, FileUrl, inert
from storage import discarding, files, objects
from storage.configuration import settings
from storage.database import transaction

log = structlog.get_logger(__name__)

_NO_FILE = NotFound(what="file")
_LOCATION = {"Location": "Where it can be downloaded"}


@post(
    "/upload",
    operation_id="upload_file",
    tags=["files"],
    summary="Upload a file",
    request_max_body_size=None,
    **documented_upload(headers=_LOCATION),
)
async def upload(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], idempotency_key: IdempotencyKey = None
) -> Response[File]:
    """As `multipart/form-data` with one file, or the file itself as the body (any other content type), then named by
    `Content-Disposition` or the query parameter `name`. It goes straight to the object storage; at most
    `MAX_UPLOAD_BYTES` of body. `type` is judged by the content, not by the name."""
    return await _upload(request, principal, idempotency_key)


@put(
    "/upload",
    operation_id="put_file",
    tags=["files"],
    summary="Upload a file as the body",
    status_code=201,
    request_max_body_size=None,
    **documented_upload(headers=_LOCATION),
)
async def upload_body(
    request: Request[Any, Any, Any], principal: NamedDependency[Principal], idempotency_key: IdempotencyKey = None
) -> Response[File]:
    """The same as POST, for clients that put files: `curl -T scans.zip`."""
    return await _upload(request, principal, idempotency_key)


@get("/files", tags=["files"], summary="Your files, newest first", sync_to_thread=True)
def list_files(
    principal: NamedDependency[Principal],
    name: Annotated[str | None, QueryParameter(max_length=255, description="Part of the name, in any case")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Files on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> FilePage:
    """Also those that came with a job. Always one's own, for an admin too."""
    return files.page(principal.id, limit, after, name)


@route(
    "/download/{filename:str}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    tags=["files"],
    summary="Download a file",
    **documented_download(_NO_FILE),
)
async def download_file(
    request: Request[Any, Any, Any], filename: FromPath[str], principal: NamedDependency[Principal]
) -> Response[Any]:
    """As an attachment under its own name; honours `Range`, `If-Range` and `If-None-Match`."""
    file, key = await blocking(files.locate, filename, _owner(principal))
    return await download(request, key, file.name, file.size, file.sha256, file.content_type, sha256=file.sha256)


@get(
    "/files/{filename:str}/url",
    operation_id="get_file_url",
    tags=["files"],
    summary="A URL that reads the file without a token",
    **documented(_NO_FILE),
)
async def file_url(filename: FromPath[str], principal: NamedDependency[Principal]) -> Response[FileUrl]:
    """For `PRESIGNED_URL_SECONDS`, straight from the object storage. Whoever has it can read the file."""
    file, key = await blocking(files.locate, filename, _owner(principal))
    seconds = settings().presigned_url_seconds
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    url = await blocking(objects.presign_get, key, seconds, file.name, inert(file.content_type), public=True)
    return Response(FileUrl(url=url, expires_at=expires_at), headers={"Cache-Control": "no-store"})


@delete(
    "/files/{filename:str}",
    tags=["files"],
    summary="Delete a file",
    sync_to_thread=True,
    **documented(_NO_FILE, FileInUse()),
)
def delete_file(filename: FromPath[str], principal: NamedDependency[Principal]) -> None:
    """409 `file_in_use` while a job names it."""
    keys = files.delete(filename, _owner(principal))
    discarding.discard(keys)


async def _upload(request: Request[Any, Any, Any], principal: Principal, key: str | None) -> Response[File]:
    async with (
        idempotent(request, principal.id, key) as once,
        receive(request, settings().max_upload_bytes, owner_id=principal.id, raw=True, hash_only=once.answered) as form,
    ):
        once.same_body(form.fingerprint())
        stored = form.file
        if stored is None:
            raise Invalid(field="file", reason="there is no file in the form")
        await form.keep(lambda: _store(principal.id, stored, once))
    return once.answer


def _store(owner_id: UUID, stored: StoredObject, once: Once) -> None:
    with transaction() as connection:
        file = files.insert(connection, owner_id, stored)
        location = f"/api/v1/download/{file.filename}"
        once.record(connection, Response(file, status_code=201, headers={"Location": location}))


def _owner(principal: Principal) -> UUID | None:
    return None if principal.is_admin else principal.id


routes = [upload, upload_body, list_files, download_file, file_url, delete_file]
lifespan = [gateways.lifespan]

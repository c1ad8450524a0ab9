"""The audio itself: in ranges, so that a browser can seek, for its owner alone, and never without a trace."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath, QueryParameter

from api.downloads import documented_download, download
from api.jobs.reading import owner_of
from api.objects import blocking
from api.openapi.operation import documented
from api.recordings.mailboxes import ADMINS
from api.recordings.resource import NO_RECORDING
from api.security import require_admin
from domain.accounts import Principal
from domain.recordings.audio import AccessPage, Recording
from storage.database import autocommit
from storage.recordings import accesses, keeping


@route(
    "/recordings/{recording_id:uuid}/audio",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    tags=["recordings"],
    summary="Listen to a recording",
    **documented_download(NO_RECORDING, media_type="audio/*"),
)
async def read_audio(
    request: Request[Any, Any, Any], recording_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Response[Any]:
    """Honours `Range`, `If-Range` and `If-None-Match`. Who was sent it, and when, is written down before the first byte
    (a HEAD sends none)."""
    part = request.headers.get("range")
    listens = request.method == "GET"
    recording, key = await blocking(_located, recording_id, principal, part, listens)
    return await download(
        request,
        key,
        recording.name,
        recording.size,
        recording.sha256,
        recording.content_type,
        sha256=recording.sha256,
    )


@get(
    "/recordings/accesses",
    tags=["recordings"],
    summary="Who has listened to recordings",
    sync_to_thread=True,
    **documented(ADMINS),
)
def list_accesses(
    principal: NamedDependency[Principal],
    recording_id: Annotated[UUID | None, QueryParameter(description="Only to this one, also when it is gone")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="Accesses on a page")] = 100,
    after: Annotated[int | None, QueryParameter(ge=0, description="`next` of the page before")] = None,
) -> AccessPage:
    """Every GET of audio, newest first: who, when, which, and which part of it. For admins."""
    require_admin(principal)
    with autocommit() as connection:
        found = accesses.page(connection, recording_id=recording_id, after=after, limit=limit + 1)
    return AccessPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


def _located(recording_id: UUID, principal: Principal, part: str | None, listens: bool) -> tuple[Recording, str]:
    with autocommit() as connection:
        found = keeping.located(connection, recording_id, owner_of(principal))
        if listens:
            accesses.note(connection, recording_id, principal, part)
    return found


routes = [read_audio, list_accesses]

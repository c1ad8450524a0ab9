"""A recording put to its call by hand."""

from uuid import UUID

import structlog
from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.jobs.reading import owner_of
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.requests import NotFound
from domain.recordings.matching import Link, Linked
from storage.database import transaction
from storage.recordings import calls, matching

_log = structlog.get_logger("api.recordings")


@post(
    "/recordings/{recording_id:uuid}/link",
    tags=["calls"],
    summary="Say which call a recording is of",
    status_code=200,
    sync_to_thread=True,
    **documented(
        NotFound(what="recording"),
        NotFound(what="call"),
        body={
            "This call": {"call_id": "01994d2e-5b10-7c3e-9f41-0d6a2b8c7e14"},
            "None": {"call_id": None},
        },
    ),
)
def link_recording(recording_id: FromPath[UUID], data: JSONBody[Link], principal: NamedDependency[Principal]) -> Linked:
    """Whatever the rule has found or would find. A call may be given several recordings by hand. With null the
    recording is of none, and the rule leaves it alone from then on. The call must be one that the caller may read."""
    owner_id = owner_of(principal)
    with transaction() as connection:
        if data.call_id is not None and calls.one(connection, data.call_id, owner_id) is None:
            raise NotFound(what="call")
        linked = matching.link(connection, recording_id, data.call_id, owner_id=owner_id)
    _log.info("recording_linked", recording_id=str(recording_id), call_id=data.call_id and str(data.call_id))
    return linked


routes = [link_recording]

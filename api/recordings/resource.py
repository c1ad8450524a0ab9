"""Recordings: listed, read, deleted."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api.jobs.reading import owner_of
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.requests import NotFound
from domain.recordings.audio import MatchStatus, Recording, RecordingPage
from domain.recordings.phones import normalised
from storage import discarding
from storage.database import autocommit
from storage.recordings import keeping

NO_RECORDING = NotFound(what="recording")


@get("/recordings", tags=["recordings"], summary="Your recordings, newest first", sync_to_thread=True)
def list_recordings(
    principal: NamedDependency[Principal],
    status: Annotated[MatchStatus | None, QueryParameter(description="Only `matched` or `unmatched` ones")] = None,
    number: Annotated[
        str | None, QueryParameter(max_length=40, description="One of the two numbers, however it is written")
    ] = None,
    started_from: Annotated[datetime | None, QueryParameter(description="Calls from then on")] = None,
    started_until: Annotated[datetime | None, QueryParameter(description="Calls before then")] = None,
    mailbox_id: Annotated[UUID | None, QueryParameter(description="Only from this mailbox")] = None,
    job_id: Annotated[UUID | None, QueryParameter(description="Only what this job fetched")] = None,
    call_id: Annotated[UUID | None, QueryParameter(description="Only of this call")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Recordings on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> RecordingPage:
    """Filtered by what is given, all of it together. An admin sees everybody's."""
    with autocommit() as connection:
        found = keeping.page(
            connection,
            owner_of(principal),
            after=after,
            limit=limit + 1,
            status=status,
            mailbox_id=mailbox_id,
            job_id=job_id,
            call_id=call_id,
            # what is no number is nobody's
            number=None if number is None else normalised(number, region="RU") or "none",
            started_from=started_from,
            started_until=started_until,
        )
    return RecordingPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@get(
    "/recordings/{recording_id:uuid}",
    tags=["recordings"],
    summary="One recording",
    sync_to_thread=True,
    **documented(NO_RECORDING),
)
def read_recording(recording_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Recording:
    """What the name says of the call, what listening has found out, and the call it belongs to. `listened` is false for
    some seconds after it has come."""
    with autocommit() as connection:
        return keeping.one(connection, recording_id, owner_of(principal))


@delete(
    "/recordings/{recording_id:uuid}",
    tags=["recordings"],
    summary="Delete a recording",
    sync_to_thread=True,
    **documented(NO_RECORDING),
)
def delete_recording(recording_id: FromPath[UUID], principal: NamedDependency[Principal]) -> None:
    """With its audio. A look at the same mail does not bring it back, the same mail delivered again does. Who has
    listened to it stays known."""
    with autocommit() as connection:
        key = keeping.delete(connection, recording_id, owner_of(principal))
    discarding.discard([key])


routes = [list_recordings, read_recording, delete_recording]

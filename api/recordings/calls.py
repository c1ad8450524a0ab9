"""Calls over HTTP. An admin sees all; anybody else those of which a recording is theirs."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api.jobs.reading import owner_of
from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.requests import NotFound
from domain.recordings.calls import CallPage, CallWithLegs, Direction
from domain.recordings.phones import normalised
from storage.database import autocommit
from storage.recordings import calls


@get("/calls", tags=["calls"], summary="Calls, the latest first", sync_to_thread=True, **documented())
def list_calls(
    principal: NamedDependency[Principal],
    number: Annotated[
        str | None,
        QueryParameter(max_length=64, description="Of either side, however it is written; or an internal number"),
    ] = None,
    direction: Annotated[Direction | None, QueryParameter(description="Only those of this direction")] = None,
    since: Annotated[datetime | None, QueryParameter(description="Begun at that time or later")] = None,
    until: Annotated[datetime | None, QueryParameter(description="Begun before that time")] = None,
    answered: Annotated[bool | None, QueryParameter(description="Whether two people talked")] = None,
    matched: Annotated[bool | None, QueryParameter(description="Whether there is a recording of it")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Calls on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> CallPage:
    """Without their legs. An admin sees all calls, anybody else those of which a recording is theirs."""
    with autocommit() as connection:
        found = calls.page(
            connection,
            owner_of(principal),
            after=after,
            limit=limit + 1,
            number=None if number is None else normalised(number) or number.strip(),
            direction=direction,
            since=since,
            until=until,
            answered=answered,
            matched=matched,
        )
    return CallPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@get(
    "/calls/{call_id:uuid}",
    tags=["calls"],
    summary="One call with its legs",
    sync_to_thread=True,
    **documented(NotFound(what="call")),
)
def read_call(call_id: FromPath[UUID], principal: NamedDependency[Principal]) -> CallWithLegs:
    """Every telephone that rang is a leg, with its states in the exchange's order, and one call it stays."""
    with autocommit() as connection:
        call = calls.one(connection, call_id, owner_of(principal))
    if call is None:
        raise NotFound(what="call")
    return call


routes = [list_calls, read_call]

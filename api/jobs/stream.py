"""GET /jobs/{id}/events and GET /events: what happens to jobs as server-sent events (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Send

from api.jobs import frames
from api.jobs.examples import EVENTS
from api.jobs.frames import Frame
from api.jobs.hub import Hub, framed
from api.objects import blocking
from api.openapi.operation import Content, documented
from api.server import WIRE, Wire
from api.tickets import TICKET
from domain.accounts import Principal
from domain.errors.accounts import TooManyStreams
from domain.errors.requests import Invalid, NotFound
from domain.jobs import FINAL, Event, Status
from storage import feeds
from storage.database import autocommit
from storage.jobs import views

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


_SAMPLE = b"".join(
    framed(None if event.seq is None else str(event.seq), event.type, msgspec.json.encode(event)) for event in EVENTS
).decode()
_POSITION = "814:817:815"
_OWNERS_SAMPLE = b"".join(framed(_POSITION, event.type, msgspec.json.encode(event)) for event in EVENTS[:1]).decode()

LastEventId = Annotated[str | None, HeaderParameter(name="Last-Event-ID", description="Resume after it")]
TicketQuery = Annotated[
    str | None, QueryParameter(description="In place of the Authorization header; see `POST /events/ticket`")
]


@get(
    "/jobs/{job_id:uuid}/events",
    tags=["events"],
    summary="Follow a job live",
    **TICKET,
    **documented(
        NotFound(what="job"),
        TooManyStreams(limit=100),
        Invalid(field="Last-Event-ID", reason="must be the id of an event of this stream"),
        gives={
            "text/event-stream": Content(
                schema={"type": "string"}, lines=Event, example=_SAMPLE, description="The events, as they happen"
            )
        },
        also={204: "The job has ended, and everything was read before"},
    ),
)
async def stream_events(
    request: Request[Any, Any, Any],
    job_id: FromPath[UUID],
    principal: NamedDependency[Principal],
    last_event_id: LastEventId = None,
    after: Annotated[int | None, QueryParameter(ge=0, description="The same, for clients without headers")] = None,
    ticket: TicketQuery = None,
) -> Response[Any] | Stream:
    """Server-sent events from the first (or the one after `Last-Event-ID`) to the terminal one, then the stream ends.

    `id` is the event's `seq`, `event` its type, `data` the JSON of it. `progress` events have no id: they are live
    only. Asked again after the terminal event, the answer is 204, which makes an `EventSource` stop.
    """
    seen = _position(last_event_id, after)
    job, last = await blocking(standing, job_id, None if principal.is_admin else principal.id)
    if job is None:
        raise NotFound(what="job")
    if job in FINAL and seen >= last:
        return Response(None, status_code=204)
    hub: Hub = request.app.state.hub
    hub.check_room(principal.id)
    wire = _wire(request)
    return _stream(frames.of_job(hub, principal, job_id, min(seen, last), wire), wire)


@get(
    "/events",
    tags=["events"],
    summary="Follow all of one's jobs live",
    **TICKET,
    **documented(
        TooManyStreams(limit=100),
        Invalid(field="Last-Event-ID", reason="must be the id of an event of this stream"),
        gives={
            "text/event-stream": Content(
                schema={"type": "string"},
                lines=Event,
                example=_OWNERS_SAMPLE,
                description="The events of all jobs, as they happen",
            )
        },
    ),
)
async def stream_all_events(
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    last_event_id: LastEventId = None,
    after: Annotated[
        str | None,
        QueryParameter(max_length=2000, description="The same, for clients without headers; 0: from the first"),
    ] = None,
    ticket: TicketQuery = None,
) -> Stream:
    """Server-sent events of every job of the caller, from now on or after `Last-Event-ID`, without end.

    `id` is a position in this stream and means nothing to a client. The events of one job come in the order of their
    `seq`; those of different jobs may be committed in any order, and none is skipped or repeated for it. `progress`
    events have no id: they are live only.
    """
    position = last_event_id or after or None
    if position == "0":
        position = feeds.BEGINNING
    if position is not None:
        await blocking(_checked, principal.id, position)
    hub: Hub = request.app.state.hub
    hub.check_room(principal.id)
    wire = _wire(request)
    return _stream(frames.of_owner(hub, principal, position, wire), wire)


def _wire(request: Request[Any, Any, Any]) -> Wire | None:
    """None behind another server than ours; then everything goes through ASGI."""
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    return extensions.get(WIRE)


def _position(last_event_id: str | None, after: int | None) -> int:
    if last_event_id is None:
        return after or 0
    if not last_event_id.isdecimal() or len(last_event_id) > 9:
        raise Invalid(field="Last-Event-ID", reason="must be the id of an event of this stream")
    return int(last_event_id)


def _stream(source: AsyncGenerator[Frame], wire: Wire | None) -> Stream:
    kind = Stream if wire is None else Unwatched
    return kind(_frames(source), media_type="text/event-stream", headers=_HEADERS)


class Unwatched(Stream):
    """A stream that ends by itself when its client has gone: Litestar's own keeps a second task to wait for that."""

    def to_asgi_response(self, *args: Any, **options: Any) -> ASGIResponse:
        made = super().to_asgi_response(*args, **options)
        made.__class__ = _Unwatched  # it has some dozen arguments, and none of them is another
        return made


class _Unwatched(ASGIStreamingResponse):
    __slots__ = ()

    async def send_body(self, send: Send, receive: Receive) -> None:
        async for chunk in self.iterator:
            data = chunk if isinstance(chunk, bytes) else chunk.encode()
            await send(HTTPResponseBodyEvent(type="http.response.body", body=data, more_body=True))
            del chunk, data  # thousands wait here: none of them keeps what it has sent
        await send(HTTPResponseBodyEvent(type="http.response.body", body=b"", more_body=False))


async def _frames(source: AsyncGenerator[Frame]) -> AsyncIterator[bytes]:
    async with aclosing(source):
        async for frame in source:
            yield frame.framed()
            del frame


def standing(job_id: UUID, owner_id: UUID | None) -> tuple[Status | None, int]:
    """(status, number of the last event); (None, 0) when there is no such job of this owner."""
    with autocommit() as connection:
        return views.standing(connection, job_id, owner_id)


def _checked(owner_id: UUID, position: str) -> None:
    with autocommit() as connection:
        feeds.news(connection, owner_id, position, limit=1)


routes = [stream_events, stream_all_events]

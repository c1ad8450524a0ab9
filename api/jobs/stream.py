"""GET /jobs/{id}/events: a job's events as server-sent events (WHATWG HTML, section 9.2).

Subscribe first, replay the table after ``Last-Event-ID``, then go live and drop what was sent already: nothing is
missed and nothing comes twice.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from api.jobs.examples import EVENTS
from api.jobs.hub import Ended, Hub, Reread
from api.objects import blocking
from api.openapi.operation import Content, documented
from domain.accounts import Principal
from domain.errors import Invalid, NotFound
from domain.jobs import FINAL, TERMINAL, Event, Status
from storage import events
from storage.database import autocommit
from storage.jobs import views

PING_SECONDS = 15.0
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


def _frame(event: Event, data: bytes) -> bytes:
    number = b"id: %d\n" % event.seq if event.seq is not None else b""
    return b"%sevent: %s\ndata: %s\n\n" % (number, event.type.encode(), data)


_SAMPLE = b"".join(_frame(event, _encode(event)) for event in EVENTS).decode()


@get(
    "/jobs/{job_id:uuid}/events",
    tags=["jobs"],
    summary="Follow a job live",
    **documented(
        NotFound(what="job"),
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
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", description="Resume after it")] = None,
    after: Annotated[int | None, QueryParameter(ge=0, description="The same, for clients without headers")] = None,
) -> Response[Any] | Stream:
    """Server-sent events from the first (or the one after `Last-Event-ID`) to the terminal one, then the stream ends.

    `id` is the event's `seq`, `event` its type, `data` the JSON of it. `progress` events have no id: they are live
    only. Asked again after the terminal event, the answer is 204, which makes an `EventSource` stop.
    """
    seen = _position(last_event_id, after)
    job, last = await blocking(_standing, job_id, None if principal.is_admin else principal.id)
    if job is None:
        raise NotFound(what="job")
    if job in FINAL and seen >= last:
        return Response(None, status_code=204)
    hub: Hub = request.app.state.hub
    return Stream(_frames(hub, job_id, min(seen, last)), media_type="text/event-stream", headers=_HEADERS)


def _position(last_event_id: str | None, after: int | None) -> int:
    if last_event_id is None:
        return after or 0
    if not last_event_id.isdecimal() or len(last_event_id) > 9:
        raise Invalid(field="Last-Event-ID", reason="must be the id of an event of this stream")
    return int(last_event_id)


def _standing(job_id: UUID, owner_id: UUID | None) -> tuple[Status | None, int]:
    with autocommit() as connection:
        return views.standing(connection, job_id, owner_id)


def _replay(job_id: UUID, after: int) -> list[Event]:
    with autocommit() as connection:
        return events.replay(connection, job_id, after)


async def _frames(hub: Hub, job_id: UUID, seen: int) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    async with hub.listen(events.channel(job_id)) as subscription:
        while True:
            while stored := await blocking(_replay, job_id, seen):
                for event in stored:
                    yield _frame(event, _encode(event))
                    seen = event.seq or seen
                    if event.type in TERMINAL:
                        return
            while True:
                message = await subscription.next(PING_SECONDS)
                if message is None:
                    yield b": ping\n\n"
                    job, last = await blocking(_standing, job_id, None)
                    if job is None or (job in FINAL and seen >= last):
                        return  # deleted meanwhile
                    break  # a message may have been lost on the way: look
                if isinstance(message, Reread):
                    break
                if isinstance(message, Ended):
                    return
                event = _decode(message)
                if event.seq is None:
                    yield _frame(event, message)
                elif event.seq == seen + 1:
                    yield _frame(event, message)
                    seen = event.seq
                    if event.type in TERMINAL:
                        return
                elif event.seq > seen:
                    break  # one before it is missing

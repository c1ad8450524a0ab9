"""WS /ws/jobs/{id}: a job's events over a WebSocket, for clients that would rather not read server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath

from api.jobs import frames
from api.jobs.frames import Frame
from api.jobs.hub import Hub
from api.jobs.reading import owner_of
from api.jobs.stream import standing
from api.objects import blocking
from api.problems import closing
from api.tickets import TICKET
from domain.accounts import Principal
from domain.errors import MillraceError
from domain.errors.requests import Invalid, NotFound
from domain.jobs import FINAL, TERMINAL, Job, Status
from storage.database import autocommit
from storage.jobs import views

_encode = msgspec.json.Encoder().encode
GOING_AWAY, DONE = 1001, 1000  # RFC 6455, section 7.4.1


@websocket("/ws/jobs/{job_id:uuid}", **TICKET)
async def follow_job(socket: WebSocket[Any, Any, Any], job_id: FromPath[UUID]) -> None:
    """First ``{"type": "job", "data": <the job>}``, then its events as on the SSE stream, each as one text message.

    ``?after=`` resumes after an event's ``seq``. It is closed with 1000 after the terminal event, with 1001 when the
    server stops or the reader is too slow (come back with ``after``), with 4000 + the HTTP status where it is refused.
    """
    principal: Principal = socket.scope["user"]
    try:
        seen = _after(socket)
        hub: Hub = socket.app.state.hub
        hub.check_room(principal.id)
        job, status, last = await blocking(_job, job_id, owner_of(principal))
    except MillraceError as error:
        raise closing(error) from error
    await socket.accept(subprotocols="bearer" if "bearer" in _offered(socket) else None)
    with suppress(WebSocketDisconnect):
        await socket.send_data(_encode({"type": "job", "data": job}).decode())
        seen = min(seen, last)
        if status in FINAL and seen >= last:
            await socket.close(code=DONE)
            return
        gone = asyncio.create_task(_until_gone(socket))
        sending = asyncio.create_task(_send(socket, frames.of_job(hub, principal, job_id, seen), job_id, seen))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await socket.close(code=DONE if sending.result() else GOING_AWAY)
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)


async def _send(socket: WebSocket[Any, Any, Any], source: AsyncGenerator[Frame], job_id: UUID, seen: int) -> bool:
    """Send until the job has ended (True) or the stream (False)."""
    async with aclosing(source):
        async for frame in source:
            if frame.type is not None:
                await socket.send_data(frame.data.decode())
                seen = int(frame.place) if frame.place else seen
                if frame.type in TERMINAL:
                    return True
    job, last = await blocking(standing, job_id, None)
    return job in FINAL and seen >= last


async def _until_gone(socket: WebSocket[Any, Any, Any]) -> None:
    """Whatever the client says is not listened to; only that it leaves."""
    with suppress(WebSocketDisconnect):
        while True:
            await socket.receive_data(mode="text")


def _after(socket: WebSocket[Any, Any, Any]) -> int:
    after = str(socket.query_params.get("after", "0"))
    if not after.isdecimal() or len(after) > 9:
        raise Invalid(field="after", reason="must be the `seq` of an event of this job")
    return int(after)


def _offered(socket: WebSocket[Any, Any, Any]) -> list[str]:
    return [word.strip() for word in socket.headers.get("sec-websocket-protocol", "").split(",")]


def _job(job_id: UUID, owner_id: UUID | None) -> tuple[Job, Status | None, int]:
    """With the status and the number of the last event, which may be newer than the job."""
    with autocommit() as connection:
        job = views.one(connection, job_id, owner_id)
        status, last = views.standing(connection, job_id, owner_id)
    if job is None:
        raise NotFound(what="job")
    return job, status, last

"""Fetching now, how it stands, and the schedule on and off."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.jobs.reading import owner_of
from api.objects import blocking
from api.openapi.operation import documented
from api.rates import Rate, spend
from api.recordings.mailboxes import ADMINS, LIMITED
from api.security import require_admin
from domain.accounts import Principal
from domain.errors.requests import NotFound
from domain.recordings.mailboxes import Fetching, Standing
from storage.database import autocommit, transaction
from storage.jobs import views
from storage.jobs.commands import Ordered
from storage.jobs.orders import set_going
from storage.recordings import mailboxes, polling

FETCHES = Rate("recording-fetches", 60, 60)

_NONE = NotFound(what="mailbox")
_Mailbox = Annotated[UUID | None, QueryParameter(description="Only this one; without it all of yours")]


@post(
    "/recordings/download",
    operation_id="fetch_recordings",
    tags=["recordings"],
    summary="Fetch recordings now",
    status_code=202,
    **documented(_NONE, LIMITED),
)
async def fetch_recordings(
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    days_back: Annotated[
        int | None, QueryParameter(ge=1, le=3650, description="How old messages may be; without it as the rules say")
    ] = None,
    mailbox_id: _Mailbox = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[Fetching]:
    """A job for each enabled mailbox, watched like any other by `/jobs/{id}/events`; where one is under way, that one
    is named instead. With `days_back` the whole folder is looked at, and nothing is fetched twice. 404 when there is no
    enabled mailbox. An admin fetches from everybody's."""
    await spend(request, FETCHES, str(principal.id))
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint(f"{days_back} {mailbox_id}".encode()))
        for ordered in await blocking(_fetch, principal, mailbox_id, days_back, once):
            await blocking(set_going, ordered)
    return once.answer


@get("/recordings/status", tags=["recordings"], summary="How the fetching stands", sync_to_thread=True)
def read_status(principal: NamedDependency[Principal]) -> Standing:
    """Of each of your mailboxes: the last look, what was found and what became of it. An admin sees everybody's."""
    with autocommit() as connection:
        return Standing(mailboxes=mailboxes.standings(connection, owner_of(principal)))


@post(
    "/recordings/start",
    operation_id="start_recordings",
    tags=["recordings"],
    summary="Switch the scheduled looks on",
    status_code=200,
    sync_to_thread=True,
    **documented(ADMINS),
)
def start(principal: NamedDependency[Principal], mailbox_id: _Mailbox = None) -> Standing:
    """Of every mailbox, or of one; each is looked into at once. For admins."""
    return _schedule(principal, mailbox_id, scheduled=True)


@post(
    "/recordings/stop",
    operation_id="stop_recordings",
    tags=["recordings"],
    summary="Switch the scheduled looks off",
    status_code=200,
    sync_to_thread=True,
    **documented(ADMINS),
)
def stop(principal: NamedDependency[Principal], mailbox_id: _Mailbox = None) -> Standing:
    """Of every mailbox, or of one. A job under way goes on, and `/recordings/download` still works. For admins."""
    return _schedule(principal, mailbox_id, scheduled=False)


def _fetch(principal: Principal, mailbox_id: UUID | None, days_back: int | None, once: Once) -> list[Ordered]:
    with transaction() as connection:
        ordered, ids = polling.order_asked(connection, owner_of(principal), mailbox_id, days_back)
        if not ids:
            raise NotFound(what="mailbox")
        jobs = [job for job_id in ids if (job := views.one(connection, job_id, None)) is not None]
        once.record(connection, Response(Fetching(jobs=jobs), status_code=202))
    return ordered


def _schedule(principal: Principal, mailbox_id: UUID | None, *, scheduled: bool) -> Standing:
    require_admin(principal)
    with autocommit() as connection:
        mailboxes.schedule(connection, None, mailbox_id, scheduled=scheduled)
        return Standing(mailboxes=mailboxes.standings(connection, None))


routes = [fetch_recordings, read_status, start, stop]

"""One-time tickets for streams: a browser's EventSource and WebSocket cannot send an Authorization header.

Kept in Redis for a minute, as a hash: whoever reads Redis, or a log with URLs, can open nothing with what is there.
"""

import hashlib
import secrets
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from msgspec import Meta
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.openapi.operation import documented
from domain.accounts import Principal
from domain.errors.accounts import NotAuthenticated
from domain.errors.neighbours import TicketsUnavailable

SECONDS = 60
TICKET: dict[str, Any] = {"opt": {"ticket": True}}  # what a route says that takes one


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Opens one stream, once, as ``?ticket=``."""

    ticket: Annotated[str, Meta(examples=["mzLtF1c8TQkzIvdfIh1b3K0bXW4pV5Y0cVhoI9nQqRk"])]
    expires_in: Annotated[int, Meta(description="Seconds", examples=[SECONDS])]


@post(
    "/events/ticket",
    tags=["events"],
    summary="A ticket for a stream",
    status_code=201,
    **documented(TicketsUnavailable()),
)
async def issue_ticket(request: Request[Any, Any, Any], principal: NamedDependency[Principal]) -> Ticket:
    """For an `EventSource` or a `WebSocket` of a browser, neither of which sends headers: add `?ticket=` to its URL. It
    opens one stream, once, within a minute; an `EventSource` that reconnects by itself needs a new one."""
    ticket = secrets.token_urlsafe(32)
    try:
        await _redis(request).set(_key(ticket), f"{principal.id} {principal.generation}", ex=SECONDS)
    except RedisError as error:
        raise TicketsUnavailable(retry_after=1) from error
    return Ticket(ticket=ticket, expires_in=SECONDS)


async def redeem(connection: Any, ticket: str) -> tuple[UUID, int]:
    """The account it was issued to and the generation of its password; it is spent by this.

    Raises:
        NotAuthenticated: it was never issued, is spent, or a minute old.
        TicketsUnavailable: Redis is away.
    """
    try:
        found = await _redis(connection).getdel(_key(ticket))
    except RedisError as error:
        raise TicketsUnavailable(retry_after=1) from error
    if found is None:
        raise NotAuthenticated
    account_id, generation = (found if isinstance(found, str) else found.decode()).split()
    return UUID(account_id), int(generation)


def _key(ticket: str) -> str:
    return f"millrace:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"


def _redis(connection: Any) -> "Redis":
    redis: Redis = connection.app.state.redis
    return redis


routes = [issue_ticket]

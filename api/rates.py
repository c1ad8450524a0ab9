"""Rate limits, counted in Redis and so shared by all processes: so many in a fixed window that opens with the first.

    UPLOAD = Rate("upload", 30, 60)
    await spend(request, UPLOAD, str(principal.id))          # raises RateLimited

    async with counting(request, WrongCredentials, (LOGIN, f"{client_address(request)}:{name}")):
        ...                                                  # counts only when it ends with WrongCredentials

With Redis down everything is let through: a limit is not worth an outage.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from litestar import Litestar, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.errors import MillraceError
from domain.errors.accounts import RateLimited
from storage.configuration import settings

_log = structlog.get_logger("api.rates")

# One script, so that no key is ever left without an expiry by a process that died between two commands.
_SPEND = """
local spent = redis.call('INCR', KEYS[1])
if spent == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {spent, redis.call('PTTL', KEYS[1])}
"""
_REFUND = "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('DECR', KEYS[1]) end return 0"


class Rate(msgspec.Struct, frozen=True):
    name: str
    limit: int
    seconds: int

    def key(self, subject: str) -> str:
        # hashed: a subject holds what a client sent, and Redis has no need to know it
        return f"millrace:rate:{self.name}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """One asyncio Redis client per process and event loop, ``app.state.redis``; short time limits, see above."""
    app.state.redis = Redis.from_url(
        settings().redis_url, socket_timeout=1, socket_connect_timeout=1, health_check_interval=30
    )
    try:
        yield
    finally:
        await app.state.redis.aclose()


async def spend(request: Request[Any, Any, Any], rate: Rate, subject: str) -> None:
    """Count one; the answer carries the RateLimit headers (draft-ietf-httpapi-ratelimit-headers-10).

    Raises:
        RateLimited: this one is over the limit; ``retry_after`` is when the window ends.
    """
    try:
        spent, left_ms = await request.app.state.redis.eval(_SPEND, 1, rate.key(subject), rate.seconds * 1000)
    except RedisError as error:
        _log.warning("rate_not_counted", rate=rate.name, error=str(error))
        return
    seconds = max(1, -(-left_ms // 1000))
    request.scope["state"].setdefault("headers", {}).update(
        {
            "RateLimit-Policy": f'"{rate.name}";q={rate.limit};w={rate.seconds}',
            "RateLimit": f'"{rate.name}";r={max(0, rate.limit - spent)};t={seconds}',
        }
    )
    if spent > rate.limit:
        raise RateLimited(seconds=seconds, retry_after=seconds)


@asynccontextmanager
async def counting(
    request: Request[Any, Any, Any], failure: type[MillraceError], *rates: tuple[Rate, str]
) -> AsyncIterator[None]:
    """Count the block against every (rate, subject), but only when it ends with that failure.

    It is counted before it is made and given back when it was fine or the fault was ours, so that a hundred guesses at
    once cannot all pass a count none of them has reached yet. Raises like ``spend``.
    """
    for rate, subject in rates:
        await spend(request, rate, subject)
    try:
        yield
    except failure:
        raise
    except Exception:
        await _refund(request, rates)
        raise
    else:
        await _refund(request, rates)


async def _refund(request: Request[Any, Any, Any], rates: Iterable[tuple[Rate, str]]) -> None:
    for rate, subject in rates:
        try:
            await request.app.state.redis.eval(_REFUND, 1, rate.key(subject))
        except RedisError as error:
            _log.warning("rate_not_refunded", rate=rate.name, error=str(error))


def client_address(request: Request[Any, Any, Any]) -> str:
    """The client's address; behind a proxy the server puts the forwarded one there (uvicorn --proxy-headers)."""
    return request.client.host if request.client else "unknown"

"""How many uploads one owner may have under way at once, counted in Redis and so in all processes together.

A place is a member of a sorted set with the time it is good until, by the clock of Redis. Whoever holds it says again
and again that it is still there; one of a dead process runs out by itself. With Redis down everybody is let in: a limit
is not worth an outage.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import structlog
from litestar import Request
from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.objects import unbroken
from domain.errors.uploads import TooManyUploads
from domain.identity import new_id
from storage.configuration import settings

HOLD_SECONDS = 20.0  # without a word; the place of a dead process is free after so long
RETRY_SECONDS = 5

# One script: counted and taken at one moment. KEYS[1] the set, ARGV: the place, the limit, how long it is good for.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
return 1
"""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def place(request: Request[Any, Any, Any], owner_id: UUID) -> AsyncIterator[None]:
    """Hold one of the owner's places for the block.

    Raises:
        TooManyUploads: none is free (OWNER_UPLOADS_AT_ONCE).
    """
    limit = settings().owner_uploads_at_once
    if not limit:
        yield
        return
    redis: Redis = request.app.state.redis
    key, mine = f"millrace:uploads:{owner_id}", str(new_id())
    if await _take(redis, key, mine, limit) is False:
        raise TooManyUploads(limit=limit, retry_after=RETRY_SECONDS)
    holding = asyncio.create_task(_hold(redis, key, mine))
    try:
        yield
    finally:
        holding.cancel()
        await unbroken(_leave(redis, key, mine))


async def _take(redis: Redis, key: str, mine: str, limit: int) -> bool | None:
    """None: nobody knows."""
    try:
        return bool(await redis.eval(_TAKE, 1, key, mine, str(limit), str(HOLD_SECONDS)))
    except RedisError as error:
        log.warning("upload_not_counted", error=str(error))
        return None


async def _hold(redis: Redis, key: str, mine: str) -> None:
    while True:
        await asyncio.sleep(HOLD_SECONDS / 4)
        # whoever has a place keeps it: what Redis has lost meanwhile is counted again, over the limit or not
        await _take(redis, key, mine, 10**9)


async def _leave(redis: Redis, key: str, mine: str) -> None:
    with suppress(RedisError):  # it runs out
        await redis.zrem(key, mine)

"""Who is calling: passwords, access tokens and the guard that stands before every route.

A route is closed unless it says ``opt={"public": True}``. A handler that wants to know its caller asks for
``principal: NamedDependency[Principal]``.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import jwt
import structlog
from argon2.exceptions import InvalidHashError, VerificationError
from litestar.concurrency import sync_to_thread
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from api import sessions
from api.problems import closing
from api.tickets import redeem
from domain.accounts import Principal, TokenGrant
from domain.errors.accounts import CrossSiteRequest, Forbidden, NotAuthenticated, RateLimited
from domain.errors.neighbours import TicketsUnavailable
from storage import accounts
from storage.accounts import Credentials, hasher
from storage.configuration import settings

Connection = ASGIConnection[Any, Any, Any, Any]
T = TypeVar("T")

# What a route that needs no token says: get("/...", **PUBLIC). The second word is for the OpenAPI document.
PUBLIC: dict[str, Any] = {"opt": {"public": True}, "security": [{}]}

ALGORITHM = "HS256"
CLAIMS = ["exp", "iat", "sub", "role", "gen"]
FRESH_SECONDS = 5.0  # how long an account that was deleted or changed may still pass for what it was
CACHED_ACCOUNTS = 10_000

# ---------------------------------------------------------------- passwords

# Two threads of their own: 85 logins a second fill two cores, and must fill neither the event loop nor the threads the
# database is waited for in. Argon2 lets go of the GIL.
_hashing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2")
_waiting = 0
WAITING_AT_MOST = 64  # about 0.8 s of hashing; beyond that everybody only waits longer

# What the password of an unknown name is checked against, so that the answer takes as long as for a known one.
_nobody = hasher.hash(secrets.token_urlsafe())


async def _in_hashing_thread(function: Callable[..., T], *args: Any) -> T:
    global _waiting  # noqa: PLW0603  # counted on the one event loop of this process
    if _waiting >= WAITING_AT_MOST:
        raise RateLimited(seconds=1, retry_after=1)
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_hashing, function, *args)
    finally:
        _waiting -= 1


async def hash_password(password: str) -> str:
    """Argon2id. Raises RateLimited when too many wait already."""
    return await _in_hashing_thread(hasher.hash, password)


async def password_fits(password: str, known: Credentials | None) -> bool:
    """Whether it is the account's password; takes as long when there is no account.

    A hash made with weaker parameters than today's is replaced. Raises RateLimited when too many wait already.
    """
    fits = await _in_hashing_thread(_verify, known.password_hash if known else _nobody, password)
    if fits and known and hasher.check_needs_rehash(known.password_hash):
        new_hash = await hash_password(password)
        await sync_to_thread(accounts.rehash, known.id, known.password_hash, new_hash)
    return fits and known is not None


def _verify(password_hash: str, password: str) -> bool:
    try:
        return hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


# ---------------------------------------------------------------- access tokens


def grant(known: Credentials) -> TokenGrant:
    """An access token for that account (JWT, HS256)."""
    seconds = settings().access_token_seconds
    now = datetime.now(UTC)
    claims = {
        "sub": str(known.id),
        "role": known.role,
        "gen": known.generation,
        "iat": now,
        "exp": now + timedelta(seconds=seconds),
    }
    return TokenGrant(access_token=jwt.encode(claims, settings().jwt_secret, ALGORITHM), expires_in=seconds)


async def authenticate(token: str) -> Principal:
    """The account behind an access token. Raises NotAuthenticated, whatever is wrong with it."""
    try:
        claims = jwt.decode(token, settings().jwt_secret, algorithms=[ALGORITHM], options={"require": CLAIMS})
        account_id = UUID(claims["sub"])
    except (jwt.InvalidTokenError, ValueError) as error:
        raise NotAuthenticated from error
    known = await _fresh(account_id)
    if known is None or known.generation != claims["gen"]:
        raise NotAuthenticated
    return _principal(known)


def _principal(known: Credentials) -> Principal:
    return Principal(id=known.id, username=known.username, role=known.role, generation=known.generation)


_cache: dict[UUID, tuple[float, Credentials | None]] = {}


async def _fresh(account_id: UUID) -> Credentials | None:
    """The account as the database has it, asked at most every five seconds."""
    until, known = _cache.get(account_id, (0.0, None))
    now = time.monotonic()  # taken before the query: the answer may be old already when it comes
    if until > now:
        return known
    known = await sync_to_thread(accounts.credentials_by_id, account_id)
    if len(_cache) >= CACHED_ACCOUNTS:
        _cache.clear()
    _cache[account_id] = (now + FRESH_SECONDS, known)
    return known


def forget(account_id: UUID) -> None:
    """The account was changed or deleted here: ask the database at its next request."""
    _cache.pop(account_id, None)


# ---------------------------------------------------------------- the guard


async def guard(connection: Connection, handler: BaseRouteHandler) -> None:
    """Stands before every route.

    Raises:
        NotAuthenticated: a WebSocket is closed with 4401.
        CrossSiteRequest: a session cookie that was sent from elsewhere; 4403.
    """
    if handler.opt.get("public"):
        return
    try:
        principal = await _caller(connection, handler)
    except (NotAuthenticated, CrossSiteRequest, TicketsUnavailable) as error:
        if connection.scope["type"] == ScopeType.WEBSOCKET:
            raise closing(error) from error
        raise
    connection.scope["user"] = principal
    structlog.contextvars.bind_contextvars(account_id=str(principal.id))


async def _caller(connection: Connection, handler: BaseRouteHandler) -> Principal:
    ticket = connection.query_params.get("ticket") if handler.opt.get("ticket") else None
    if ticket is None or "authorization" in connection.headers:
        return await authenticate(_bearer(connection))
    account_id, generation = await redeem(connection, str(ticket))
    known = await _fresh(account_id)
    if known is None or known.generation != generation:
        raise NotAuthenticated
    return _principal(known)


async def current_principal(scope: Scope) -> Principal:
    """Behind ``principal: NamedDependency[Principal]``. Raises NotAuthenticated on a public route."""
    principal = scope.get("user")
    if not isinstance(principal, Principal):
        raise NotAuthenticated
    return principal


def require_admin(principal: Principal) -> None:
    """Raises Forbidden."""
    if not principal.is_admin:
        raise Forbidden(role="admin")


def _bearer(connection: Connection) -> str:
    """The token from the Authorization header (RFC 6750), else from the cookie of a browser's session.

    A browser's WebSocket cannot send that header: there the token may stand as the second word of
    ``Sec-WebSocket-Protocol: bearer, <token>``; accept such a socket with the subprotocol ``bearer``.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    if connection.scope["type"] == ScopeType.WEBSOCKET:
        words = [word.strip() for word in connection.headers.get("sec-websocket-protocol", "").split(",")]
        if len(words) == 2 and words[0] == "bearer":
            return words[1]
    if "authorization" not in connection.headers and (found := sessions.token(connection)):
        return found
    raise NotAuthenticated

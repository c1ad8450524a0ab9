"""The session of a browser: the access token in a cookie, so that an EventSource and a link for a download carry it.

A browser sends a cookie whoever made it ask, another site's page included. ``SameSite=Strict`` keeps other sites' pages
out; what changes something must also say that a page of this very origin sent it, because a neighbour on another port
or another name of the same domain counts as the same site (OWASP, Cross-Site Request Forgery Prevention).
"""

from typing import Any

from litestar import Request, Response, delete
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.enums import ScopeType

from api.openapi.operation import documented
from domain.accounts import SESSION_COOKIE, TokenGrant
from domain.errors.accounts import CrossSiteRequest
from storage.configuration import settings

Connection = ASGIConnection[Any, Any, Any, Any]

PATH = "/api/v1"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1: they change nothing, and no other origin can read them


def opened(connection: Connection, grant: TokenGrant) -> Cookie:
    """The cookie that carries this token until it expires.

    Raises:
        CrossSiteRequest: another site's page wants its visitor to be signed in here. What says nothing of where it
            comes from is no browser.
    """
    if not _from_own_page(connection, unsaid=True):
        raise CrossSiteRequest
    return _cookie(connection, grant.access_token, grant.expires_in)


def token(connection: Connection) -> str | None:
    """The access token in the cookie, None where there is none.

    Raises:
        CrossSiteRequest: something would be changed, or a WebSocket opened, and not by a page of this origin.
    """
    found = connection.cookies.get(SESSION_COOKIE)
    if found and connection.scope.get("method") not in SAFE and not _from_own_page(connection, unsaid=False):
        raise CrossSiteRequest
    return found or None


@delete(
    "/auth/session",
    tags=["accounts"],
    summary="Take the session cookie away",
    status_code=204,
    opt={"public": True},
    security=[{}],
    sync_to_thread=False,
    **documented(headers={"Set-Cookie": f"`{SESSION_COOKIE}`, empty and over"}),
)
def end_session(request: Request[Any, Any, Any]) -> Response[None]:
    """Whether or not there is one. The token that was in it stays good until it expires, for whoever has kept it; a
    new password ends it."""
    return Response(None, status_code=204, cookies=[_cookie(request, "", 0)])


def _cookie(connection: Connection, value: str, seconds: int) -> Cookie:
    return Cookie(
        key=SESSION_COOKIE,
        value=value,
        path=PATH,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=settings().public_url.startswith("https:") or connection.url.scheme in ("https", "wss"),
    )


def _from_own_page(connection: Connection, *, unsaid: bool) -> bool:
    """Whether the browser says so: by ``Sec-Fetch-Site`` (W3C Fetch Metadata), else by ``Origin`` (RFC 6454).

    A handshake is always judged by its ``Origin``: every browser sends it there. ``unsaid`` is the answer where there
    is neither.
    """
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    if site is not None and connection.scope["type"] != ScopeType.WEBSOCKET:
        return site == "same-origin"
    if origin is None:
        return unsaid
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return origin.lower() == f"{scheme}://{connection.headers.get('host', '')}".lower()


routes = [end_session]

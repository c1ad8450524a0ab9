"""What surrounds every request: its id, its line in the log, its count in the metrics and the headers of its answer."""

import re
import time
from typing import Any

import structlog
from litestar.datastructures import MutableScopeHeaders
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.health import observe
from domain.errors import MillraceError
from domain.errors.requests import NotFound
from domain.identity import new_id

_log = structlog.get_logger("api.access")
_sane = re.compile(r"[A-Za-z0-9._-]{8,64}")  # what may be taken over from a client into our logs

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # answers are data; the documentation page, the one that is a page, brings a policy of its own
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class RequestEnvelope:
    """The outermost ASGI application.

    Not a Litestar middleware: those run behind the routing, so an unknown path would have neither id nor line.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request_id = _request_id(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status: int | None = None
        first_byte: float | None = None

        async def dressed(message: Message) -> None:
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status, first_byte = message["status"], time.perf_counter() - began
                headers = MutableScopeHeaders.from_message(message)
                for name, value in {**HEADERS, **scope["state"].get("headers", {})}.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = request_id
            elif message["type"] == "websocket.accept":
                status, first_byte = 101, time.perf_counter() - began
            elif message["type"] == "websocket.close" and status is None:
                if not scope.get("path_template"):  # Litestar calls an unknown path of a WebSocket a 4500
                    message = {**message, "code": 4000 + NotFound.status, "reason": NotFound.code}
                # refused before it was accepted would be a bare 403, of which a browser tells a script nothing
                code = message.get("code", 1000)
                status = code - 4000 if 4400 <= code < 4600 else 403
                await send({"type": "websocket.accept", "subprotocol": _subprotocol(scope), "headers": []})
            await send(message)

        try:
            await self.app(scope, receive, dressed)
        except Exception as error:
            # what has a name and comes after the status: the server closes the connection of an answer that is not
            # complete, and a traceback would say no more than the code
            if status is None or (named := _named(error)) is None:
                raise
            _log.warning("answer_cut", path=scope["path"], code=named.code, reason=str(named))
        finally:
            # neither a status nor an exception: the client went away first (nginx's 499)
            seconds = time.perf_counter() - began
            _record(scope, status or 499, seconds, first_byte or seconds)


def _named(error: BaseException | None) -> MillraceError | None:
    """The one error of ours that was wrapped on its way, by what streams an answer and by what answers errors."""
    while error is not None and not isinstance(error, MillraceError):
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            error = error.__cause__
    return error


def _subprotocol(scope: Scope) -> str | None:
    """A browser that has offered some gives up a connection that takes none of them."""
    offered: Any = scope.get("subprotocols") or ()
    return "bearer" if "bearer" in offered else None


def _record(scope: Scope, status: int, seconds: float, first_byte: float) -> None:
    method = str(scope.get("method", "WEBSOCKET"))
    route = scope.get("path_template") or "unmatched"
    observe(method, route, status, first_byte)
    log: Any = _log.debug if route in ("/metrics", "/health", "/health/live", "/health/ready") else _log.info
    log("request", method=method, route=route, path=scope["path"], status=status, ms=round(seconds * 1000, 1))


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
    return given if _sane.fullmatch(given) else str(new_id())

"""An HTTP transport whose requests have one time limit in all.

httpx limits each read by itself: a peer that sends a byte a second, in the head of its answer as well as in the body,
would hold a worker for hours (httpx #1450). Here every wait for the socket gets only what is left of the whole.
Resolving a name is the system's own affair and not limited.
"""

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

# How h11 and httpcore begin when the other side went away in mid-answer; all else they say is an answer in no HTTP.
CUT_SHORT = ("peer closed connection", "Server disconnected")

_until: ContextVar[float | None] = ContextVar("until", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Around a request and the reading of its answer; what takes longer raises an httpx.TimeoutException."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def left(most: float) -> float:
    """What is left of the limit, ``most`` at most, never below 0."""
    until = _until.get()
    return most if until is None else min(most, max(0.0, until - time.monotonic()))


def _left(timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
    until = _until.get()
    if until is None:
        return timeout
    left = until - time.monotonic()
    if left <= 0:
        raise error("the time for the whole request is up")
    return left if timeout is None else min(left, timeout)


class LimitedStream(httpcore.NetworkStream):
    """A connection that waits no longer than the limit of the request it serves."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return LimitedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


class LimitedBackend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return LimitedStream(super().connect_tcp(host, port, left, local_address, socket_options))


class LimitedTransport(httpx.HTTPTransport):
    """httpx's own transport over such connections; no proxy, no HTTP/2."""

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        keepalive_expiry: float = 2.0,
        connections: int | None = 10,
        keepalive: int | None = None,
        backend: httpcore.NetworkBackend | None = None,
    ) -> None:
        """``keepalive_expiry``: below a server's own (5 s is common), or requests meet connections just closed.

        ``connections`` at once (None: any number), ``keepalive`` of them kept idle; ``backend`` is what connects.
        """
        super().__init__(verify=verify, trust_env=False)
        # httpx has no way to hand in a network backend
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(verify=verify, trust_env=False),
            max_connections=connections,
            max_keepalive_connections=keepalive,
            keepalive_expiry=keepalive_expiry,
            network_backend=backend or LimitedBackend(),
        )


def seconds_of(retry_after: str | None, most: float = 3600.0) -> float | None:
    """Retry-After in seconds from now, at most ``most``; None when there is none or it cannot be read.

    RFC 9110, section 10.2.3: a number of seconds or an HTTP-date.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), most)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # without a zone it is GMT, which every HTTP-date is
    ahead = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)
    return min(max(ahead.total_seconds(), 0.0), most)

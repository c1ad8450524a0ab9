"""The request itself: to a checked address, signed, with one time limit in all, and hardly any of the answer read."""

import os
import ssl
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any

import httpcore
import httpx
import msgspec

from domain.addresses import check_url
from domain.errors.webhooks import HostUnknown, UrlRefused
from domain.webhooks import ANSWER_BYTES, LONGEST_RETRY_AFTER, Fault, Payload, signed
from storage import addresses
from storage.configuration import settings
from storage.webhooks.deliveries import Attempted, Sending
from workers.transport import CUT_SHORT, LimitedBackend, LimitedTransport, left, seconds_of, time_limit

CONNECT_SECONDS = 5.0  # for one address of several


def post(sending: Sending, secrets: Sequence[str]) -> Attempted:
    """Make one attempt. Never raises for what the receiver does."""
    at, began = datetime.now(UTC), time.monotonic()
    body = msgspec.json.encode(Payload(type=sending.type, timestamp=sending.at, data=sending.data))
    fault, response, answer = None, None, b""
    try:
        check_url(sending.url, settings().webhook_rules)
        with (
            time_limit(settings().webhook_request_seconds),
            client().stream(
                "POST",
                sending.url,
                content=body,
                headers={"Content-Type": "application/json", **signed(secrets, sending.id, int(at.timestamp()), body)},
            ) as response,
        ):
            answer = _beginning(response)
    except (httpx.HTTPError, httpx.InvalidURL, UrlRefused) as error:
        # an answer whose end never came is still an answer
        fault = None if response is not None else _named(error)
    if response is not None and not response.is_success:
        fault = Fault.STATUS
    return Attempted(
        at=at,
        milliseconds=round((time.monotonic() - began) * 1000),
        status_code=response.status_code if response is not None else None,
        answer=_text(answer) if response is not None else None,
        fault=fault,
        retry_after=seconds_of(response.headers.get("Retry-After"), LONGEST_RETRY_AFTER)
        if response is not None
        else None,
    )


def _beginning(response: httpx.Response) -> bytes:
    """The first KiB; as it came, for unpacking is where a kilobyte becomes a gigabyte."""
    body = b""
    try:
        for chunk in response.iter_raw(ANSWER_BYTES):
            body += chunk
            if len(body) >= ANSWER_BYTES:
                break
    except httpx.HTTPError:
        pass  # the status has been said
    return body[:ANSWER_BYTES]


def _text(answer: bytes) -> str:
    # PostgreSQL's text knows no NUL
    return answer.decode(errors="replace").replace("\0", "\ufffd")


def _named(error: Exception) -> Fault:
    if isinstance(error, HostUnknown):
        return Fault.HOST_UNKNOWN
    if isinstance(error, UrlRefused | httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Fault.URL_REFUSED
    if isinstance(error, httpx.TimeoutException):
        return Fault.TIMED_OUT
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return Fault.TLS
        cause = cause.__cause__ or cause.__context__
    cut_short = str(error).startswith(CUT_SHORT)
    return Fault.NO_HTTP if isinstance(error, httpx.RemoteProtocolError) and not cut_short else Fault.UNREACHABLE


class CheckedBackend(LimitedBackend):
    """Connects to the address that was checked, and to no other: the name is resolved here and nowhere else."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        found = addresses.resolved(host, port, settings().webhook_rules, left(CONNECT_SECONDS))
        failed: Exception = httpcore.ConnectError("no address")
        for address in found:
            try:
                return super().connect_tcp(address, port, CONNECT_SECONDS, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


@cache
def client() -> httpx.Client:
    """One client per process, which keeps no connection: each attempt checks its address anew."""
    made = httpx.Client(
        headers={"User-Agent": f"Millrace/{version('millrace')}", "Accept": "*/*", "Accept-Encoding": "identity"},
        timeout=settings().webhook_request_seconds,
        follow_redirects=False,
        trust_env=False,
        transport=LimitedTransport(connections=None, keepalive=0, backend=CheckedBackend()),
    )
    made.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return made


os.register_at_fork(after_in_child=client.cache_clear)

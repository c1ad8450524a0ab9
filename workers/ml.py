"""The ML service's client: its three requests, and their failures told apart by cause.

Transient (no connection, no TLS, time is up, an answer cut short, 429, 5xx) may be retried, rejected (any other 4xx, a
redirect) may not, and a protocol error is an answer that cannot be read. The mapping stands here once.
"""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import NamedTuple, TypeVar
from uuid import UUID

import httpx
import msgspec

from domain.errors.inference import MlProtocolError, MlRejected, MlUnavailable
from domain.inference import UNKNOWN, Acceptance, Standing, Submission
from storage.configuration import settings
from workers.transport import CUT_SHORT, LimitedTransport, seconds_of, time_limit

MAX_ANSWER = 1024 * 1024  # bytes; an acceptance is some hundred
CANCEL_TRIES, CANCEL_SECONDS, CANCEL_PAUSE = 3, 3.0, 0.5  # nobody waits for it, and a worker is held

# What httpx raises for a request it cannot even begin, because we made it wrong.
_OUR_OWN = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)

T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes


def submit(submission: Submission, idempotency_key: str) -> Acceptance | None:
    """POST the job; None when it was accepted (202), the Acceptance when it is already done (200).

    Raises:
        MlUnavailable: no connection, no whole answer within ML_REQUEST_SECONDS, 429 or 5xx; ``retry_after`` in seconds.
        MlRejected: any other 4xx, or a redirect.
        MlProtocolError: a 2xx that is not of the contract, or no HTTP.
    """
    answer = _exchange(
        "POST",
        "/infer",
        content=msgspec.json.encode(submission),
        headers={"Idempotency-Key": idempotency_key, "Content-Type": "application/json"},
    )
    if answer.status == httpx.codes.ACCEPTED:
        return None
    _check(answer)
    acceptance = _read(answer, Acceptance)
    if acceptance.job_uuid != submission.job_uuid:
        raise MlProtocolError(reason="the answer is about another job")
    return acceptance


def status(job_id: UUID) -> Standing | None:
    """GET how the job stands; None when the service cannot be asked, or does not say that it has forgotten the job.

    404, 405 and 501 are that; a 404 with a standing of status `unknown` says that it has.

    Raises:
        MlUnavailable, MlRejected, MlProtocolError: as for ``submit``.
    """
    answer = _exchange("GET", f"/jobs/{job_id}")
    if answer.status in _NOT_OFFERED:
        return _forgotten(answer, job_id)
    _check(answer)
    standing = _read(answer, Standing)
    if standing.job_uuid != str(job_id):
        raise MlProtocolError(reason="the answer is about another job")
    return standing


def cancel(job_id: UUID) -> None:
    """DELETE the job there. A service that does not know it, or takes no DELETE (404, 405, 501), has nothing to do.

    Tried three times within a few seconds. Raises as ``submit``, after the last.
    """
    for tried in range(1, CANCEL_TRIES + 1):
        try:
            answer = _exchange("DELETE", f"/jobs/{job_id}", seconds=CANCEL_SECONDS)
            if answer.status not in _NOT_OFFERED and not httpx.codes.is_success(answer.status):
                _check(answer)
        except MlUnavailable:
            if tried == CANCEL_TRIES:
                raise
        else:
            return
        time.sleep(CANCEL_PAUSE * tried)


def _forgotten(answer: Answer, job_id: UUID) -> Standing | None:
    try:
        standing = msgspec.json.decode(answer.body, type=Standing)
    except msgspec.DecodeError:
        return None  # such as the page of a server without that path
    return standing if standing.status == UNKNOWN and standing.job_uuid == str(job_id) else None


_NOT_OFFERED = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.NOT_IMPLEMENTED)


def _exchange(
    method: str,
    path: str,
    content: bytes | None = None,
    headers: dict[str, str] | None = None,
    seconds: float | None = None,
) -> Answer:
    """Raises MlUnavailable and MlProtocolError."""
    with (
        _named(),
        time_limit(seconds or settings().ml_request_seconds),
        client().stream(method, path, content=content, headers=headers) as response,
    ):
        try:
            body = _bounded(response)
        except (httpx.TransportError, MlProtocolError):
            if response.status_code != httpx.codes.ACCEPTED:
                raise
            body = b""  # accepted is accepted, whatever becomes of the rest
    return Answer(response.status_code, response.headers, body)


def _bounded(response: httpx.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        # none was asked for, and unpacking is where a megabyte becomes a gigabyte
        raise MlProtocolError(reason="the answer is compressed")
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise MlProtocolError(reason=f"the answer is longer than {MAX_ANSWER} bytes")
    return bytes(body)


@contextmanager
def _named() -> Iterator[None]:
    """What httpx raises, by our names."""
    try:
        yield
    except _OUR_OWN:
        raise
    except httpx.RemoteProtocolError as error:
        if str(error).startswith(CUT_SHORT):
            raise MlUnavailable(reason="the answer was cut short") from error
        raise MlProtocolError(reason=f"the answer is no HTTP: {error}") from error
    except httpx.TransportError as error:
        raise MlUnavailable(reason=_reason(error)) from error


def _reason(error: BaseException) -> str:
    """A name for people; of the whole chain, a fault of TLS says most."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {cause.reason or type(cause).__name__}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _check(answer: Answer) -> None:
    """Raises what an answer other than 200 means."""
    status = answer.status
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
        raise MlUnavailable(reason=f"status {status}", retry_after=seconds_of(answer.headers.get("Retry-After")))
    if status >= 300:
        raise MlRejected(status_code=status)
    if status != httpx.codes.OK:
        raise MlProtocolError(reason=f"status {status}")


def _read(answer: Answer, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MlProtocolError(reason=f"200, but {error}") from None


@cache
def client() -> httpx.Client:
    """One pooled client per process. Redirects are not followed: the token goes to the configured service only."""
    config = settings()
    pooled = httpx.Client(
        base_url=config.ml_service_url,
        headers={"Authorization": f"Bearer {config.ml_service_token}", "Accept-Encoding": "identity"},
        timeout=config.ml_request_seconds,
        follow_redirects=False,
        trust_env=False,
        transport=LimitedTransport(),
    )
    pooled.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # a service has no business with them
    return pooled


os.register_at_fork(after_in_child=client.cache_clear)

"""The ML service's client: one request, and its failures told apart by cause.

Transient (no connection, timeout, 429, 5xx) may be retried, rejected (any other 4xx, a redirect) may not, and a
protocol error is an answer that cannot be read. The mapping stands here once.
"""

import os
from functools import cache

import httpx
import msgspec

from domain.errors import MlProtocolError, MlRejected, MlUnavailable
from domain.inference import Acceptance, Submission
from storage.configuration import settings

MAX_ANSWER = 1024 * 1024  # bytes; an acceptance is some hundred


def submit(submission: Submission, idempotency_key: str) -> Acceptance | None:
    """POST the job; None when it was accepted (202), the Acceptance when it is already done (200).

    Raises:
        MlUnavailable: no connection, no answer within ML_REQUEST_SECONDS, 429 or 5xx; ``retry_after`` in seconds.
        MlRejected: any other 4xx, or a redirect.
        MlProtocolError: a 2xx that is not of the contract.
    """
    try:
        with client().stream(
            "POST",
            "/infer",
            content=msgspec.json.encode(submission),
            headers={"Idempotency-Key": idempotency_key, "Content-Type": "application/json"},
        ) as response:
            body = _bounded(response)
    except httpx.TransportError as error:
        raise MlUnavailable(reason=type(error).__name__, retry_after=None) from error
    except httpx.DecodingError as error:
        raise MlProtocolError(reason=f"the body is not what Content-Encoding says: {error}") from error
    return _read(response, body, submission.job_uuid)


def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise MlProtocolError(reason=f"the answer is longer than {MAX_ANSWER} bytes")
    return bytes(body)


def _read(response: httpx.Response, body: bytes, job_uuid: str) -> Acceptance | None:
    status = response.status_code
    if status == 429 or status >= 500:
        raise MlUnavailable(reason=f"status {status}", retry_after=_seconds(response.headers.get("Retry-After")))
    if status == 202:
        return None
    if status != 200:
        raise MlRejected(status_code=status) if status >= 300 else MlProtocolError(reason=f"status {status}")
    try:
        answer = msgspec.json.decode(body, type=Acceptance)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MlProtocolError(reason=f"200, but {error}") from None
    if answer.job_uuid != job_uuid:
        raise MlProtocolError(reason="the answer is about another job")
    return answer


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds (RFC 9110, section 10.2.3), at most an hour; dates are not used between services."""
    return min(float(retry_after), 3600.0) if retry_after and retry_after.isdecimal() else None


@cache
def client() -> httpx.Client:
    """One pooled client per process. Redirects are not followed: the token goes to the configured service only."""
    config = settings()
    return httpx.Client(
        base_url=config.ml_service_url,
        headers={"Authorization": f"Bearer {config.ml_service_token}"},
        timeout=config.ml_request_seconds,
        follow_redirects=False,
        trust_env=False,
    )


os.register_at_fork(after_in_child=client.cache_clear)

"""What can go wrong for a client.

``Unreachable`` is a server that does not answer, ``Refused`` one that does: with a problem (RFC 9457) whose ``code`` is
stable. The codes programs act upon have a class of their own; any other code is the class of its HTTP status.
"""

from typing import Any

import httpx
import msgspec


class ClientError(Exception):
    """The root of all errors of this package."""


class BadAddress(ClientError):
    """The server's address is none: it begins with `http://` or `https://`, and has a host."""


class BadToken(ClientError):
    """A token is visible ASCII characters."""


class BadKey(ClientError):
    """An Idempotency-Key is 1 to 255 visible ASCII characters."""


class Unreachable(ClientError):
    """No answer of a Millrace server came, however often it was tried."""


class FileChanged(ClientError):
    """The file changed its size while it was uploaded."""


class Refused(ClientError):
    """The server answered with a problem; its sentence is the message."""

    code: str = ""

    def __init__(self, answered: "Answered", *, resent: bool = False) -> None:
        super().__init__(answered.detail)
        self.code = answered.code
        self.status = answered.status
        self.detail = answered.detail
        self.field = answered.field  # the input that is wrong
        self.errors = answered.errors  # {field, reason} of each that is wrong, where there are several
        self.details = answered.details  # the values the sentence was made of
        self.request_id = answered.request_id  # what to quote to an operator
        self.retryable = answered.retryable  # whether the same request may succeed later
        self.retry_after = answered.retry_after  # seconds, where the server named them
        self.resent = resent  # an earlier try may have been done, only its answer was lost


class NotSignedIn(Refused):
    """No token, or one that is no longer good."""

    code = "not_authenticated"


class WrongCredentials(NotSignedIn):
    """The username or the password is wrong."""

    code = "wrong_credentials"


class Forbidden(Refused):
    """Signed in, but not as somebody who may."""

    code = "forbidden"


class NotFound(Refused):
    """There is no such thing, or it is somebody else's."""

    code = "not_found"


class Conflict(Refused):
    """It does not fit the state things are in."""

    code = "conflict"


class AlreadyTaken(Conflict):
    """Somebody else has this username or e-mail."""

    code = "already_taken"


class JobNotReady(Conflict):
    """The job does not have it yet."""

    code = "job_not_ready"


class JobIsFinal(Conflict):
    """The job has already ended; ``details["status"]`` says how."""

    code = "job_is_final"


class InFlight(Conflict):
    """The first request with this Idempotency-Key is still being answered."""

    code = "idempotency_in_flight"


class Invalid(Refused):
    """An input is wrong; ``field`` names it."""

    code = "invalid"


class UnknownProfile(Invalid):
    """The installation has no such profile; ``details["known"]`` are those it has."""

    code = "unknown_profile"


class TooLarge(Refused):
    """The file is larger than the installation takes; ``details["limit"]`` is in bytes."""

    code = "body_too_large"


class RateLimited(Refused):
    """Too many requests; ``retry_after`` says when again."""

    code = "rate_limited"


class Unavailable(Refused):
    """The server, or one it stands on, is down or overloaded; it was tried again in vain."""

    code = "unavailable"


class Answered(msgspec.Struct, kw_only=True):
    """A problem as it stands in the answer."""

    code: str
    status: int
    detail: str
    field: str | None = None
    errors: list[dict[str, str]] | None = None
    details: dict[str, Any] | None = None
    request_id: str | None = None
    retryable: bool = False
    retry_after: float | None = None


def classes(root: type[Refused] = Refused) -> dict[str, type[Refused]]:
    """Every class below ``root`` by the code it stands for."""
    found: dict[str, type[Refused]] = {}
    for child in root.__subclasses__():
        found |= {child.code: child, **classes(child)}
    return found


def refused(response: httpx.Response, *, resent: bool = False) -> Refused:
    """The error for an answer that is one; its body has been read. Where it is not Millrace's but of something in
    between, ``code`` is `http_` and the status."""
    try:
        answered = msgspec.json.decode(response.content, type=Answered)
    except msgspec.DecodeError:
        status = response.status_code
        detail = f"{response.request.url} answered {status} {response.reason_phrase}".rstrip()
        answered = Answered(code=f"http_{status}", status=status, detail=detail)
    answered.status = response.status_code
    seconds = response.headers.get("retry-after", "")
    answered.retry_after = float(seconds) if seconds.isdecimal() else None
    answered.request_id = answered.request_id or response.headers.get("x-request-id")
    return _class_of(answered)(answered, resent=resent)


_BY_STATUS: dict[int, type[Refused]] = {
    400: Invalid,
    401: NotSignedIn,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: TooLarge,
    415: Invalid,
    422: Invalid,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def _class_of(answered: Answered) -> type[Refused]:
    return classes().get(answered.code) or _BY_STATUS.get(answered.status, Refused)

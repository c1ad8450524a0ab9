"""Errors as RFC 9457 problems: one handler for every exception that leaves a handler."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, SerializationException, ValidationException, WebSocketException
from msgspec import Meta
from sqlalchemy.exc import DataError

from domain.errors import MillraceError
from domain.errors.accounts import Forbidden, NotAuthenticated, RateLimited
from domain.errors.requests import (
    BodyTooLarge,
    ClientGone,
    Invalid,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    UnsupportedMedia,
)

_log = structlog.get_logger("api.problems")
MEDIA_TYPE = "application/problem+json"
_simple = str | int | float | bool | None


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One of several fields that are wrong."""

    field: Annotated[str, Meta(examples=["threshold"])]
    reason: Annotated[str, Meta(examples=["Expected `float` <= 1.0"])]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457). Match on ``code``: it is stable; ``detail`` is for people, in the language asked for.

    ``field`` names the offending input, ``errors`` every one where there are several, ``details`` are the values the
    sentence was made of. ``retryable`` means that the same request may succeed later.
    """

    type: Annotated[str, Meta(description="Where the code is explained", examples=["/docs/errors#invalid"])]
    title: Annotated[str, Meta(description="The code in words", examples=["Invalid"])]
    status: Annotated[int, Meta(examples=[422])]
    detail: Annotated[str, Meta(description="A sentence for people", examples=["Expected `float` <= 1.0"])]
    instance: Annotated[str, Meta(description="The path of the request", examples=["/api/v1/jobs"])]
    code: Annotated[str, Meta(description="Stable; all of them are at /docs/errors", examples=["invalid"])]
    request_id: Annotated[
        str | None, Meta(description="Finds the request in the logs", examples=["01994d2e-6a51-7c04-9d3e-2f8b1c0a7e55"])
    ] = None
    field: Annotated[str | None, Meta(description="The input that is wrong", examples=["threshold"])] = None
    errors: Annotated[
        list[FieldProblem] | None, Meta(description="Every field that is wrong, where there are several")
    ] = None
    details: Annotated[dict[str, Any] | None, Meta(description="The values the sentence was made of")] = None
    retryable: Annotated[bool, Meta(description="Whether the same request may succeed later")] = False


def answer(request: Request[Any, Any, Any], exception: Exception) -> Response[Problem]:
    """The exception handler of the application: its problem, and a log line for what is our own fault."""
    error, errors = _named(request, exception)
    if error.status >= 500:
        trace = None if error.retryable else exception  # a neighbour that is down needs no traceback
        _log.error("request_failed", code=error.code, error=str(exception), exc_info=trace)
    language = language_of(request)
    if type(error) is Invalid:  # its sentence is often msgspec's
        error = Invalid(field=error.field, reason=_reason(language, str(error)))
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return Response(
        problem(error, request.scope["path"], language=language, request_id=request_id, errors=errors),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={"Content-Language": language, **_headers(error, exception)},
    )


def problem(
    error: MillraceError,
    instance: str,
    *,
    language: str = "en",
    request_id: str | None = None,
    errors: Sequence[FieldProblem] = (),
) -> Problem:
    """The error as clients see it; ``instance`` is the path of the request."""
    return Problem(
        type=f"/docs/errors#{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error.message(language),
        instance=instance,
        code=error.code,
        request_id=request_id,
        field=error.field,
        errors=list(errors) if len(errors) > 1 else None,
        details=_details(error),
        retryable=error.retryable,
    )


def closing(error: MillraceError) -> WebSocketException:
    """The same for a WebSocket, to be raised: Litestar maps no exceptions there. Code 4404 is what 404 would be."""
    return WebSocketException(detail=error.code, code=4000 + error.status)


def _named(request: Request[Any, Any, Any], exception: Exception) -> tuple[MillraceError, list[FieldProblem]]:
    """The error of our own tree that says what happened, and every field that is wrong."""
    match exception:
        case MillraceError():
            return exception, []
        case ValidationException():
            return _invalid(language_of(request), exception.detail, exception.extra)
        case msgspec.ValidationError():
            return _invalid(language_of(request), str(exception), [{"message": str(exception)}])
        case SerializationException() | msgspec.DecodeError():
            return MalformedRequest(reason=str(exception)), []
        case UnicodeDecodeError():
            return MalformedRequest(reason="it is not UTF-8"), []
        case RecursionError():
            return MalformedRequest(reason="it is nested too deeply"), []
        case DataError():  # NUL in a text, a number beyond bigint: fine in JSON, but nothing Postgres can hold
            return Invalid(reason="a value cannot be stored; texts must not contain NUL characters"), []
        case HTTPException(detail="client disconnected prematurely"):  # Litestar calls that a 500
            return ClientGone(), []
        case HTTPException():
            return _routed(request, exception), []
    return MillraceError(), []


def _invalid(language: str, detail: str, extra: Any) -> tuple[Invalid, list[FieldProblem]]:
    wrong = [
        FieldProblem(field=_field(one), reason=_reason(language, one.get("message", "")))
        for one in (extra if isinstance(extra, list) else [])
        if isinstance(one, dict)
    ]
    if not wrong:  # a missing parameter: only the sentence names it, and goes on with the whole URL
        named = re.search(r"parameter '([\w-]+)'", detail)
        return Invalid(field=named and named[1], reason=_reason(language, detail.split(" for path ", 1)[0])), []
    return Invalid(field=wrong[0].field, reason=wrong[0].reason), wrong


def _routed(request: Request[Any, Any, Any], exception: HTTPException) -> MillraceError:
    """What Litestar itself refuses, before or around a handler."""
    match exception.status_code:
        case 400:
            return MalformedRequest(reason=exception.detail)
        case 401:
            return NotAuthenticated()
        case 403:
            return Forbidden(role="admin")
        case 404:
            return NotFound(what="path")
        case 405:
            return MethodNotAllowed(method=request.method)
        case 413:
            return BodyTooLarge(limit=request.route_handler.resolve_request_max_body_size())
        case 415:
            return UnsupportedMedia(expected="another media type", received=request.headers.get("content-type", ""))
        case 429:
            return RateLimited(seconds=1, retry_after=1)
        case status if status < 500:
            return MalformedRequest(reason=HTTPStatus(status).phrase)
    return MillraceError()


def _details(error: MillraceError) -> dict[str, Any] | None:
    """What a client may want to compute with; never of a 5xx, where the values are our own business."""
    if error.status >= 500:
        return None
    values = {k: v for k, v in error.details.items() if isinstance(v, _simple) and k != "reason"}
    return values or None


def _headers(error: MillraceError, exception: Exception) -> dict[str, str]:
    headers = dict(exception.headers or {}) if isinstance(exception, HTTPException) and error.status == 405 else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="millrace"'
    if error.status == 408:  # or the slow client would hold its connection, though nothing listens to it any more
        headers["Connection"] = "close"
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return headers


def language_of(request: Request[Any, Any, Any]) -> str:
    return "ru" if request.headers.get("accept-language", "").strip().lower().startswith("ru") else "en"


def _field(one: dict[str, Any]) -> str:
    """The input a message is about; msgspec names a missing or unknown field only in its sentence."""
    key = str(one.get("key", "")).removeprefix("data.")
    if found := re.search(r"field `(\w+)`", one.get("message", "")):
        return found[1] if key in ("", "data") else f"{key}.{found[1]}"
    return "body" if key in ("", "data") else key


# msgspec's sentences (its error messages are part of its documentation), for readers of Russian
_russian = (
    (re.compile(r"^Expected `(.+?)`, got `(.+?)`"), r"Ожидается `\1`, получено `\2`"),
    (re.compile(r"^Expected `(.+?)` of length (>=|<=) (\d+)"), r"Ожидается `\1` длиной \2 \3"),
    (re.compile(r"^Expected `(.+?)` (>=|<=|>|<) (\S+)"), r"Ожидается `\1` \2 \3"),
    (re.compile(r"^Expected `(.+?)` matching regex (.+)"), r"Ожидается `\1` по образцу \2"),
    (re.compile(r"^Object missing required field `(\w+)`"), r"Нет обязательного поля `\1`"),
    (re.compile(r"^Object contains unknown field `(\w+)`"), r"Неизвестное поле `\1`"),
    (re.compile(r"^Missing required (\w+) parameter '?(\w+)'?.*"), r"Нет обязательного параметра `\2`"),
    (re.compile(r"^Invalid enum value (.+)"), r"Недопустимое значение \1"),
    (re.compile(r"^Invalid (\S+)"), r"Недопустимое значение типа \1"),
    (re.compile(r"^A JSON body is needed"), r"Нужно тело запроса в JSON"),
)


def _reason(language: str, message: str) -> str:
    message = message.split(" - at `", 1)[0]
    if message == "'data'":  # the KeyError Litestar passes on for a body that is not there
        message = "A JSON body is needed"
    if language == "ru":
        for pattern, replacement in _russian:
            if pattern.search(message):
                return pattern.sub(replacement, message)
    return message

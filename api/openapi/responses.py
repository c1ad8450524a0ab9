"""The answers of an operation: the successful one with its examples, and the problems by status."""

from http import HTTPStatus
from typing import Any

import msgspec

from api.openapi.operation import Content, Said
from api.openapi.schemas import Schemas, sentence
from api.problems import MEDIA_TYPE, problem
from domain.errors import MillraceError
from domain.errors.accounts import CrossSiteRequest, NotAuthenticated
from domain.errors.neighbours import DatabaseUnavailable
from domain.errors.requests import (
    BodyTooLarge,
    EncodingUnsupported,
    IdempotencyInFlight,
    IdempotencyMismatch,
    Invalid,
    MalformedRequest,
)

REQUEST_ID = "01994d2e-6a51-7c04-9d3e-2f8b1c0a7e55"
JSON_BODY_BYTES = 10_000_000  # Litestar's limit for a body that is read whole
_HEADERS = {
    401: {"WWW-Authenticate": "`Bearer`, RFC 6750"},
    416: {"Content-Range": "How many bytes there are: `bytes */8885`"},
    429: {
        "Retry-After": "Seconds to wait",
        "RateLimit": "RateLimit header fields, draft-ietf-httpapi-ratelimit-headers",
    },
}

Object = dict[str, Any]


def success(status: int, said: Said, answer: type | None, schemas: Schemas, *, headless: bool) -> Object:
    """The successful answer; ``headless`` is one to HEAD, which has no body."""
    content: Object = {media: media_of(one, schemas) for media, one in said.gives.items()}
    description = next((one.description for one in said.gives.values()), HTTPStatus(status).phrase)
    if answer is not None and not content:
        reference = schemas.reference(answer)
        whole = schemas.example(reference)
        examples = {
            _slug(name): {"summary": name, "value": {**whole, **changes}}
            for name, changes in (said.answer or {"Example": {}}).items()
        }
        content = {"application/json": {"schema": reference, "examples": examples}}
        description = sentence(schemas.resolved(reference)) or description
    response: Object = {"description": description, "headers": headers(said.headers)}
    if content and not headless:
        response["content"] = content
    return {name: part for name, part in response.items() if part}


def further(one: str | Content, schemas: Schemas) -> Object:
    """An answer that is neither the usual success nor a problem."""
    if isinstance(one, str):
        return {"description": one}
    return {"description": one.description, "content": {one.media_type: media_of(one, schemas)}}


def media_of(content: Content, schemas: Schemas) -> Object:
    """One media type of a body that was described explicitly."""
    schema = schemas.reference(content.schema)
    if content.lines:
        schema = {**schema, "contentMediaType": "text/event-stream", "contentSchema": schemas.reference(content.lines)}
    example = content.example
    if example is None and (isinstance(content.schema, type) or "properties" in schema):
        example = schemas.example(schema)
    return {"schema": schema} | ({} if example is None else {"examples": {"example": {"value": example}}})


def named(examples: dict[str, Any]) -> Object:
    return {_slug(name): {"summary": name, "value": value} for name, value in examples.items()}


def headers(described: Any) -> Object:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}


def problems(path: str, errors: list[MillraceError]) -> Object:
    """A response for each status, with an example for each error."""
    by_status: dict[int, list[MillraceError]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _problems(path, by_status[status]) for status in sorted(by_status)}


def usual(operation: Object, path: str, method: str, data: Object | None) -> list[MillraceError]:
    """The errors that follow from what kind of operation it is; ``data`` is the schema of a JSON body."""
    found: list[MillraceError] = []
    if {} not in operation.get("security", []):
        found.append(NotAuthenticated())
    if "security" not in operation and method not in ("get", "head"):
        found.append(CrossSiteRequest())
    asked = [one["name"] for one in operation.get("parameters", ()) if one["in"] != "path"]
    if data is not None:
        found += [MalformedRequest(reason="Input data was truncated"), BodyTooLarge(limit=JSON_BODY_BYTES)]
        for name in data.get("required", ()):
            found.append(Invalid(field=name, reason=f"Object missing required field `{name}`"))
            break
    elif "limit" in asked:
        found.append(Invalid(field="limit", reason="Expected `int` >= 1"))
    if "requestBody" in operation:
        found.append(EncodingUnsupported(encoding="gzip"))
    if "Idempotency-Key" in asked:
        found += [IdempotencyInFlight(), IdempotencyMismatch(field="Idempotency-Key")]
    if path.startswith("/api/"):
        found.append(DatabaseUnavailable())
    return found


def _problems(path: str, errors: list[MillraceError]) -> Object:
    codes = list(dict.fromkeys(error.code for error in errors))
    examples = {error.code: {"value": _example(path, error)} for error in reversed(errors)}  # the handler's own wins
    status = errors[0].status
    response = {
        "description": " or ".join(f"`{code}`" for code in codes),
        "headers": headers(_HEADERS.get(status, {})),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: examples[code] for code in codes},
            }
        },
    }
    return {name: part for name, part in response.items() if part}


def _example(path: str, error: MillraceError) -> Object:
    built: Object = msgspec.to_builtins(problem(error, path, request_id=REQUEST_ID))
    return built


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())

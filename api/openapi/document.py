"""What Litestar cannot know of the document: how errors look here, and an example of each body."""

from collections.abc import Iterator
from typing import Any

import msgspec

from api.problems import MEDIA_TYPE, Problem
from domain.errors import Invalid, MillraceError, NotAuthenticated, NotFound

DESCRIPTION = """\
Register, log in, send the access token as `Authorization: Bearer <token>`. Ids are UUIDv7, times RFC 3339 in UTC.

Errors are `application/problem+json` (RFC 9457): match on `code`, which is stable; `detail` is a sentence for people, \
in Russian when `Accept-Language` begins with `ru`. What belongs to somebody else is answered like what does not exist.

Lists come in pages: pass `next` of one page as `after` for the following one; null means it was the last. \
Every answer carries `X-Request-ID`; send your own to find a request in the logs.
"""

_METHODS = ("get", "post", "put", "patch", "delete")


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """The document with our problems in the place of Litestar's errors, and examples; done once, in place."""
    components = schema["components"]
    if "Problem" not in components.setdefault("schemas", {}):
        _, problem = msgspec.json.schema_components([Problem], ref_template="#/components/schemas/{name}")
        components["schemas"].update(problem)
        components["responses"] = {error.code: _response(error) for error in (NotAuthenticated, NotFound, Invalid)}
        components["responses"]["problem"] = _response(MillraceError)
        for path, _, operation in each(schema):
            _add_problems(path, operation)
            _add_example(operation, components["schemas"])
    return schema


def each(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) of every operation."""
    for path, item in schema["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def is_public(operation: dict[str, Any]) -> bool:
    return {} in operation.get("security", [])


def resolved(reference: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What ``{"$ref": "#/components/..."}`` points to; anything else as it is."""
    found: Any = schema
    if "$ref" not in reference:
        return reference
    for step in reference["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _add_problems(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("400", None)  # Litestar's own form of a validation error, which is never sent here
    if not is_public(operation):
        responses.setdefault("401", _reference(NotAuthenticated))
    if "{" in path:
        responses.setdefault("404", _reference(NotFound))
    if operation.get("parameters") or "requestBody" in operation:
        responses.setdefault("422", _reference(Invalid))
    responses.setdefault("default", {"$ref": "#/components/responses/problem"})


def _add_example(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """A whole body out of the examples of its fields."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if not body or "$ref" not in body["schema"]:
        return
    fields = schemas[body["schema"]["$ref"].rsplit("/", 1)[-1]].get("properties", {})
    if example := {name: field["examples"][0] for name, field in fields.items() if field.get("examples")}:
        body.setdefault("example", example)


def _reference(error: type[MillraceError]) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{error.code}"}


def _response(error: type[MillraceError]) -> dict[str, Any]:
    general = error is MillraceError
    example = Problem(
        type=f"/docs/errors#{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=error.status,
        detail=error(what="account", reason="Expected `str` of length >= 8").message(),
        instance="/api/v1/users/01890a5d-ac96-774b-bcce-b302099a8057",
        code=error.code,
        request_id="01890a5d-ac96-774b-bcce-b302099a8058",
        field="password" if error is Invalid else None,
    )
    return {
        "description": "Any other error" if general else f"`{error.code}`",
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": msgspec.to_builtins(example),
            }
        },
    }

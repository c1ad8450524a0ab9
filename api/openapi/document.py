"""The OpenAPI document: what Litestar knows of the routes, and what only this application knows.

Litestar gives paths, parameters, summaries and tags. The bodies, their examples and the errors are put in here, from
the handlers' types and from what they say of themselves by ``documented``.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.openapi import responses
from api.openapi.operation import Said, said
from api.openapi.schemas import Schemas
from api.problems import MEDIA_TYPE, Problem

DESCRIPTION = """\
Register, log in, send the access token as `Authorization: Bearer <token>`. Ids are UUIDv7, times RFC 3339 in UTC, \
sizes bytes.

Errors are `application/problem+json` (RFC 9457): match on `code`, which is stable; `detail` is a sentence for people, \
in Russian when `Accept-Language` begins with `ru`. What belongs to somebody else is answered like what does not exist.

Lists come in pages: pass `next` of one page as `after` for the following one; null means it was the last. \
Every answer carries `X-Request-ID`; send your own to find a request in the logs.
"""

METHODS = ("get", "head", "post", "put", "patch", "delete")
# What stands in paths. Ids are of the same job as in the examples of bodies.
_PATHS = {
    "job_id": ("The job's `id`", "01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"),
    "upload_id": ("The upload's `id`", "01994d2e-6a4f-7f12-b6a8-c43e5b7d9012"),
    "webhook_id": ("The endpoint's `id`", "01994d2e-7f00-7c11-9a51-2f6d0c8e1b35"),
    "delivery_id": ("The delivery's `id`", "01994d2e-8a10-7d42-8b11-6a0c9e2f7d18"),
    "call_id": ("The call's `id`", "01994d2e-5b10-7c3e-9f41-0d6a2b8c7e14"),
    "recording_id": ("The recording's `id`", "01994d30-1c20-7a55-8e02-7b1f4c9d0a63"),
    "mailbox_id": ("The mailbox's `id`", "01994d2e-7f00-7c11-9a51-2f6d0c8e1b35"),
    "user_id": ("The account's `id`", "01994d2b-11c8-7e0a-a5f4-93c7d2b86e10"),
    "username": ("The account's `username`, in any case", "anna.petrova"),
    "filename": ("The file's stored name: its `filename`", "01994d2e-6a4f-7f12-b6a8-c43e5b7d9012.zip"),
    "entry": ("The entry's `index` in the listing", 0),
    "direct_id": ("The upload's `id`", "01994d2e-6a4f-7f12-b6a8-c43e5b7d9012"),
}
_ANY_OTHER = {
    "description": "Any other error",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

Object = dict[str, Any]


def completed(schema: Object, app: Litestar) -> Object:
    """Litestar's document made whole; done once, in place."""
    components = schema["components"]
    if "Problem" in components.setdefault("schemas", {}):
        return schema
    handlers = _handlers(app)
    schemas = Schemas(types(app))
    components["schemas"] = schemas.components
    components["responses"] = {"problem": _ANY_OTHER}
    schema["paths"] = dict(sorted(schema["paths"].items()))
    for path, method, operation in each(schema):
        _complete(operation, path, method, handlers[path, method], schemas)
    return schema


def types(app: Litestar) -> set[type]:
    """Every type that is a body."""
    found: set[type] = {Problem}
    for handler in _handlers(app).values():
        found |= {one for one in (_data(handler), _answer(handler)) if one} | said(handler.operation_class).types
    return found


def each(schema: Object) -> Iterator[tuple[str, str, Object]]:
    """(path, method, operation) of every operation."""
    for path, item in schema["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def resolved(reference: Object, schema: Object) -> Object:
    """What ``{"$ref": "#/components/..."}`` points to; anything else as it is."""
    found: Any = schema
    if "$ref" not in reference:
        return reference
    for step in reference["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _handlers(app: Litestar) -> dict[tuple[str, str], HTTPRouteHandler]:
    """The documented handlers by (path, method)."""
    return {
        (route.path_format or "/", method.lower()): handler
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if handler.resolve_include_in_schema()
    }


def _complete(operation: Object, path: str, method: str, handler: HTTPRouteHandler, schemas: Schemas) -> None:
    words, data = said(handler.operation_class), _data(handler)
    if method == "head":
        operation["summary"] += " (headers only)"
    parameters = [_parameter(one) for one in operation.pop("parameters", ())]
    for name, (place, text) in words.asks.items():
        parameters.append({"name": name, "in": place, "description": text, "schema": {"type": "string"}})
    if parameters:
        operation["parameters"] = parameters
    if body := _body(words, data, schemas):
        operation["requestBody"] = {"required": True, "content": body}
    data_schema = schemas.resolved(schemas.reference(data)) if data else None
    errors = [*words.errors, *responses.usual(operation, path, method, data_schema)]
    operation["responses"] = {
        str(handler.status_code): responses.success(
            handler.status_code, words, _answer(handler), schemas, headless=method == "head"
        ),
        **{str(status): responses.further(one, schemas) for status, one in words.also.items()},
        **responses.problems(path.format(**{name: example for name, (_, example) in _PATHS.items()}), errors),
        "default": {"$ref": "#/components/responses/problem"},
    }


def _parameter(parameter: Object) -> Object:
    """Litestar's without flags that say nothing; what is not sent is not there, and never null."""
    schema = parameter["schema"]
    choices = [one for one in schema.get("oneOf", ()) if one != {"type": "null"}]
    schema = {name: value for name, value in schema.items() if name not in ("oneOf", "description")}
    tidy = {name: value for name, value in parameter.items() if value is not False}
    tidy["schema"] = {**(choices[0] if len(choices) == 1 else {}), **schema}
    if parameter["in"] == "path":
        tidy["description"], tidy["example"] = _PATHS[parameter["name"]]
    return tidy


def _body(words: Said, data: type | None, schemas: Schemas) -> Object:
    if words.takes:
        return {media: responses.media_of(one, schemas) for media, one in words.takes.items()}
    if data is None:
        return {}
    reference = schemas.reference(data)
    examples = words.body or {"Example": schemas.example(reference)}
    return {"application/json": {"schema": reference, "examples": responses.named(dict(examples))}}


def _data(handler: HTTPRouteHandler) -> type | None:
    """The type of the JSON body."""
    field = handler.parsed_fn_signature.parameters.get("data")
    return None if field is None else _struct(field.annotation)


def _answer(handler: HTTPRouteHandler) -> type | None:
    """The type that is answered as JSON."""
    field = handler.parsed_fn_signature.return_type
    if field.is_subclass_of(Response):
        return _struct(field.inner_types[0].annotation) if field.inner_types else None
    return _struct(field.annotation)


def _struct(annotation: Any) -> type | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) else None

"""What a handler says of itself beside its signature, for the OpenAPI document.

    @get("/jobs/{job_id:uuid}", summary="One job", **documented(NotFound(what="job"), answer={"A job": {}}))

The errors are instances, raised nowhere: their status, code and sentence become the documented problem. What every
operation has in common (401, 422, 503, examples of whole bodies) is added by ``api.openapi.document``.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from litestar.openapi.spec import Operation

from domain.errors import MillraceError

Example = Any  # a JSON value
BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A body that the signature does not show: its schema (a type, or JSON Schema) and an example."""

    schema: type | dict[str, Any]
    example: Example = None
    description: str = ""  # of the answer
    media_type: str = "application/json"  # of a further answer
    lines: type | None = None  # what each event of a stream holds


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """All that was said; see ``documented``."""

    errors: tuple[MillraceError, ...] = ()
    body: Mapping[str, Example] = {}
    takes: Mapping[str, Content] = {}
    answer: Mapping[str, Mapping[str, Example]] = {}
    gives: Mapping[str, Content] = {}
    headers: Mapping[str, str] = {}
    also: Mapping[int, str | Content] = {}
    asks: Mapping[str, tuple[Literal["query", "header"], str]] = {}

    @property
    def types(self) -> set[type]:
        """What the document has to describe because of it."""
        contents = [*self.takes.values(), *self.gives.values(), *self.also.values()]
        named = [shape for one in contents if isinstance(one, Content) for shape in (one.schema, one.lines)]
        return {shape for shape in named if isinstance(shape, type)}


NOTHING = Said()
_NONE: Mapping[Any, Any] = {}


def documented(
    *errors: MillraceError,
    body: Mapping[str, Example] = _NONE,
    takes: Mapping[str, Content] = _NONE,
    answer: Mapping[str, Mapping[str, Example]] = _NONE,
    gives: Mapping[str, Content] = _NONE,
    headers: Mapping[str, str] = _NONE,
    also: Mapping[int, str | Content] = _NONE,
    asks: Mapping[str, tuple[Literal["query", "header"], str]] = _NONE,
) -> dict[str, Any]:
    """For a handler's decorator.

    ``body``: examples of the JSON body by name; without it one is put together from the fields' own examples.
    ``takes``: the body by media type, where the handler reads it from the request itself.
    ``answer``: examples by name, each as what differs from the one put together.
    ``gives``: the successful answer by media type, where it is not the JSON of the return type.
    ``headers``: of the successful answer. ``also``: further answers that are no problems, by status. ``asks``:
    optional parameters that are read from the request itself, by name: where they stand and what they are.
    """
    words = Said(
        errors=errors, body=body, takes=takes, answer=answer, gives=gives, headers=headers, also=also, asks=asks
    )

    class Documented(Operation):
        said = words

    return {"operation_class": Documented}


def said(operation_class: type[Operation]) -> Said:
    found: Said = getattr(operation_class, "said", NOTHING)
    return found

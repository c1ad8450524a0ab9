"""What the OpenAPI document says of bodies that are read as a stream, which no signature shows."""

from typing import Any, Literal

import msgspec

from api.openapi.operation import BINARY, Content, documented
from domain.errors import NOTHING_KEPT, MillraceError
from domain.errors.neighbours import ShuttingDown, StorageUnavailable
from domain.errors.requests import BodyTooLarge, ClientGone, Invalid, MalformedRequest
from domain.errors.uploads import DigestMismatch, StorageQuotaExceeded, TooManyUploads, UploadTooSlow

MULTIPART = "multipart/form-data"
_FILE = {**BINARY, "description": "At most one; its name may be in any encoding", "examples": ["@scans.zip"]}

# What every body that is streamed into the storage can end with.
STREAMED: tuple[MillraceError, ...] = (
    MalformedRequest(reason="a field is given twice", field="title"),
    ClientGone(),
    BodyTooLarge(limit=5 * 1024**3),
    ShuttingDown(kept=NOTHING_KEPT),
    StorageQuotaExceeded(unit="bytes", limit=10 * 1024**3, used=10 * 1024**3 - 4096, asked=8885),
    DigestMismatch(field="Content-Digest", algorithm="sha-256"),
    UploadTooSlow(seconds=20, kept=NOTHING_KEPT),
    TooManyUploads(limit=100),
    StorageUnavailable(),
)

RAW = Content(schema={**BINARY, "description": "The file itself, of any other media type"}, example="@scans.zip")

_DIGEST = "`sha-256=:...:`, `sha-512=:...:` (RFC 9530) of the body, or as a header of a form's part, of the file"
# What every such body may be sent with, besides the parameters of the signature.
ASKED: dict[str, tuple[Literal["query", "header"], str]] = {
    "name": ("query", "The file's name, where the body is the file itself"),
    "Content-Disposition": ("header", '`attachment; filename="scans.zip"`: the same, and wins over `name`'),
    "Content-Digest": ("header", f"{_DIGEST}; 422 `digest_mismatch` when it is another"),
    "Repr-Digest": ("header", "The same"),
}


def form(order: type | None = None, leave_out: str = "", required: tuple[str, ...] = ()) -> Content:
    """A form of a file and the fields of ``order`` but one."""
    fields: dict[str, Any] = {}
    if order is not None:
        _, components = msgspec.json.schema_components([order], ref_template="#/components/schemas/{name}")
        fields = components[order.__name__]["properties"]
        # a field of a form is there or not, but never null
        fields = {name: one.get("anyOf", [one])[0] for name, one in fields.items() if name != leave_out}
    return Content(schema={"type": "object", "properties": {"file": _FILE, **fields}, "required": list(required)})


def documented_upload(*errors: MillraceError, **said: Any) -> dict[str, Any]:
    """For the decorator of a handler that takes a file as a form or as the body itself."""
    return documented(
        *errors,
        *STREAMED,
        Invalid(field="file", reason="there is no file in the form"),
        takes={MULTIPART: form(required=("file",)), "application/octet-stream": RAW},
        asks=ASKED,
        **said,
    )

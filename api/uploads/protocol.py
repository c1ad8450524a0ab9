"""What all of tus is told and asked alike: the headers of answers, the version, and the words of the documentation."""

from datetime import UTC
from email.utils import format_datetime
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from api.openapi.operation import BINARY, Content
from domain import uploads as tus
from domain.errors import BEGINNING_KEPT
from domain.errors.neighbours import ShuttingDown, StorageUnavailable
from domain.errors.requests import BodyTooLarge, MalformedRequest, NotFound
from domain.errors.uploads import (
    ChecksumMismatch,
    DigestMismatch,
    StorageQuotaExceeded,
    TooManyUploads,
    TusVersionUnsupported,
    UploadExpired,
    UploadHeader,
    UploadTooSlow,
)
from domain.uploads import MEDIA_TYPE, Upload
from storage.uploads.receiving import Standing

HERE = "/api/v1/uploads"
NO_UPLOAD = (NotFound(what="upload"), UploadExpired())
VERSION = TusVersionUnsupported(supported=tus.VERSION)
CHUNK = {MEDIA_TYPE: Content(schema={**BINARY, "description": "The next bytes"}, example="@scans.zip")}
RESUMABLE: dict[str, tuple[Any, str]] = {"Tus-Resumable": ("header", "`1.0.0`; without it the answer is 412")}
CHECKSUM: dict[str, tuple[Any, str]] = {
    "Upload-Checksum": (
        "header",
        "`sha256 <base64>`, also sha1, md5: the body is kept whole and true, or not at all",
    ),
    "Content-Digest": ("header", "`sha-256=:...:`, `sha-512=:...:` (RFC 9530) of the body: the same"),
    "Repr-Digest": ("header", "The same as `Content-Digest`: what a PATCH represents are its own bytes"),
}
AT = {
    "Upload-Offset": "Bytes that are kept; not of a final upload that is `finishing`",
    "Upload-Expires": "Until when, if no further bytes come",
}
MADE = {
    "Millrace-File": "The `filename` of the file, once the upload is complete",
    "Millrace-Job": "The `id` of the job it was ordered with, once the upload is complete",
}
TAKING = (
    UploadHeader(field="Upload-Checksum", reason="the algorithms are sha1, sha256, md5"),
    BodyTooLarge(limit=5 * 1024**3),
    ChecksumMismatch(algorithm="sha256"),
    DigestMismatch(field="Content-Digest", algorithm="sha-256"),
    MalformedRequest(field="Content-Digest", reason="Content-Digest has no sha-256 digest in the form `sha-256=:...:`"),
    UploadTooSlow(seconds=20, kept=BEGINNING_KEPT),
    TooManyUploads(limit=100),
    ShuttingDown(kept=BEGINNING_KEPT),
    StorageQuotaExceeded(unit="bytes", limit=10737418240, used=10737000000, asked=5242880),
    StorageUnavailable(),
    VERSION,
)


def at(standing: Standing) -> dict[str, str]:
    told = {"Upload-Expires": format_datetime(standing.expires_at.astimezone(UTC), usegmt=True)}
    if standing.sources is None or standing.state == "complete":  # tus 1.0.0, Concatenation: not before it is done
        told["Upload-Offset"] = str(standing.received)
    return told


def made(upload: Upload) -> dict[str, str]:
    made = {"Millrace-File": upload.file.filename} if upload.file else {}
    return made | ({"Millrace-Job": str(upload.job_id)} if upload.job_id else {})


def media_type(request: Request[Any, Any, Any]) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class TusHeader(ASGIMiddleware):
    """Every answer says the version of the protocol, refusals too."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        said = {"Tus-Resumable": tus.VERSION, "Tus-Version": tus.VERSION}
        scope["state"].setdefault("headers", {}).update(said)
        await next_app(scope, receive, send)


def speaks_tus(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Raises TusVersionUnsupported; GET, which is not of the protocol, and OPTIONS need no version."""
    if connection.scope.get("method") in ("GET", "OPTIONS"):
        return
    if connection.headers.get("tus-resumable") != tus.VERSION:
        raise TusVersionUnsupported(supported=tus.VERSION)

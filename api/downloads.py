"""Downloads: from the object storage to the client's socket, whole or in part, never faster than the client reads."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal

import httpx
from litestar import Request, Response
from litestar.response import Stream

from api.objects import blocking, gateway
from api.openapi.operation import BINARY, Content, documented
from domain import digests
from domain.errors import MillraceError
from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import RangeNotSatisfiable
from domain.files import attachment, inert
from storage import objects
from storage.configuration import settings

URL_SECONDS = 300  # only until the store has seen the request; reading may take hours
_HEADERS = {
    "Content-Disposition": "`attachment` under its own name (RFC 6266, Cyrillic included)",
    "Content-Length": "Bytes in this answer",
    "ETag": "Changes with the content; for `If-None-Match` and `If-Range`",
    "Repr-Digest": "`sha-256=:...:` of the whole file (RFC 9530), where it is known",
    "Accept-Ranges": "`bytes`",
}
_ASKS: dict[str, tuple[Literal["header"], str]] = {
    "Range": ("header", "`bytes=0-1023`: only this part; of several ranges the whole is sent"),
    "If-Range": ("header", "An `ETag`: the part only if the file is still the same, else the whole"),
    "If-None-Match": ("header", "`ETag`s that are known already"),
}
_PART = "The part asked for with `Range: bytes=0-1023`; `Content-Range` says where it lies in the whole"


def documented_download(*errors: MillraceError, media_type: str = "*/*") -> dict[str, Any]:
    """For the decorator of a handler that answers with ``download``."""
    return documented(
        *errors,
        ObjectMissing(),
        RangeNotSatisfiable(size=8885),
        StorageUnavailable(),
        gives={media_type: Content(schema=BINARY, description="The file")},
        asks=_ASKS,
        headers=_HEADERS,
        also={
            206: Content(schema=BINARY, description=_PART, media_type=media_type),
            304: "`If-None-Match` names what is there: nothing is sent again",
            307: "With `DOWNLOADS=redirect`, to GET: `Location` is a presigned URL of the object storage",
        },
    )


async def download(
    request: Request[Any, Any, Any],
    key: str,
    name: str,
    size: int,
    etag: str,
    content_type: str,
    *,
    sha256: str | None = None,
) -> Response[Any]:
    """The answer that sends the object as an attachment called ``name``.

    Honours one range of bytes with `If-Range`, and `If-None-Match` (RFC 9110, 13 and 14); several ranges are answered
    with the whole, and so is a HEAD: a range is of a GET alone (RFC 9110 14.2). ``size`` is in bytes, ``etag`` is what
    changes with the content, without quotes, ``sha256`` in hexadecimal digits becomes `Repr-Digest`. A HEAD reads
    nothing from the store. With DOWNLOADS=redirect the answer to a GET is where the store itself has it.

    Raises:
        RangeNotSatisfiable: the range begins behind the end.
        ObjectMissing, StorageUnavailable: before the first byte. Later the connection is cut, so that a client never
            takes a part for the whole.
    """
    tag = f'"{etag}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
    }
    if matches(request.headers.get("if-none-match", ""), tag):
        return Response(None, status_code=304, headers=headers)
    if settings().downloads == "redirect" and request.method == "GET":
        return await _redirect(key, name, content_type)
    if sha256 is not None:
        headers["Repr-Digest"] = digests.field_of(sha256)
    start, length = 0, size
    part = None
    if (
        request.method == "GET" and request.headers.get("if-range", tag) == tag
    ):  # a date never matches: there is no Last-Modified
        part = _range(request, size)
    if part is not None:
        start, length = part
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    body = _Empty() if request.method == "HEAD" or not length else await Opened.at(key, start, length, part is not None)
    return Stream(
        body,
        status_code=200 if part is None else 206,
        media_type=content_type,
        headers={
            **headers,
            "Content-Length": str(length),
            "Content-Type": content_type,  # also in the answer to a HEAD
            "Content-Disposition": attachment(name),
            # what a user sent is never shown as a page of ours, whatever it says it is
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


async def _redirect(key: str, name: str, content_type: str) -> Response[Any]:
    seconds = settings().presigned_url_seconds
    url = await blocking(objects.presign_get, key, seconds, name, inert(content_type), public=True)
    # 307 and not 302: what follows it is the same request, with its Range; and it must not outlive the URL
    headers = {"Location": url, "Cache-Control": "no-store"}
    return Response(b"", status_code=307, media_type="text/plain", headers=headers)


def matches(header: str, tag: str) -> bool:
    """RFC 9110 13.1.2: a list of tags compared weakly, or `*`."""
    return header.strip() == "*" or tag in (word.strip().removeprefix("W/") for word in header.split(","))


def _range(request: Request[Any, Any, Any], size: int) -> tuple[int, int] | None:
    """(offset, length) of the one range asked for; None where there is none that must be honoured (RFC 9110 14.2)."""
    match = re.fullmatch(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", request.headers.get("range", ""), re.ASCII)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or size), size - 1)
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, end = max(0, size - int(match[2])), size - 1
    if start >= size:
        request.scope["state"]["headers"] = {"Content-Range": f"bytes */{size}"}
        raise RangeNotSatisfiable(size=size)
    return start, end - start + 1


class _Empty:
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


class Opened(_Empty):
    """An object being read. Its first bytes are there already, so that errors still become an answer."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        # Begun, and so closed with the store's connection by the event loop even if nobody asks for a second piece.
        self._rest = rest

    @classmethod
    async def at(cls, key: str, start: int, length: int, partial: bool) -> "Opened":
        pieces = read_part(key, start, length, partial=partial)
        return cls(await anext(pieces), pieces)

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await anext(self._rest)


async def read_part(key: str, start: int, length: int, *, partial: bool = True) -> AsyncGenerator[bytes, None]:
    """``length`` bytes of an object from ``start`` on as they come; without ``partial`` they are all of it.

    Raises:
        ObjectMissing, StorageUnavailable: also between two pieces.
    """
    url = await blocking(objects.presign_get, key, URL_SECONDS)  # the first call builds the client
    headers = {"Range": f"bytes={start}-{start + length - 1}"} if partial else {}
    try:
        # identity: a store that compresses would send another length than the one announced
        async with gateway().http.stream("GET", url, headers={"Accept-Encoding": "identity", **headers}) as answer:
            if answer.status_code == 404:
                raise ObjectMissing
            # by the length and not by status 206: `rclone serve s3` answers a range with 200 and the right bytes
            if answer.status_code not in (200, 206) or answer.headers.get("content-length") != str(length):
                raise StorageUnavailable(retry_after=1)
            async for piece in answer.aiter_raw():
                yield piece
    except httpx.TransportError as error:
        raise StorageUnavailable(retry_after=1) from error

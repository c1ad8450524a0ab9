"""The request's body: read with a limit and a patience, and cut into fields and a file."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from litestar import Request
from litestar.exceptions import ClientException
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from api.stopping import Stopping
from api.uploads.intake import Digesting
from api.uploads.parts import Promise
from domain.digests import Announced, announced
from domain.errors import NOTHING_KEPT
from domain.errors.neighbours import ShuttingDown
from domain.errors.requests import BodyTooLarge, ClientGone, MalformedRequest
from domain.errors.uploads import UploadTooSlow
from domain.files import decode_text, name_from

FIELDS = 16
FIELD_BYTES = 64 * 1024  # the values of all fields together
# Everything of a form that is not the file: values, part headers, boundaries, preamble and epilogue. Because it is
# bounded, a form of known length says how many bytes of file it surely holds, and parts can be sent without waiting.
BESIDE_BYTES = 128 * 1024
# Spent in waiting for the client, and not for the store; what came in so long must be the least rate's worth of bytes.
WINDOW_SECONDS = 20.0
LOOK_SECONDS = 0.5  # between two looks whether the server is being stopped


class Body:
    """The bytes of a request, counted; ``length`` is what the client announced, None where it did not."""

    def __init__(self, request: Request[Any, Any, Any], limit: int, least_rate: int = 0) -> None:
        """``least_rate`` is in bytes a second; 0 means that a byte a window will do.

        Raises:
            BodyTooLarge: the announced length is over ``limit`` bytes; nothing was read.
            MalformedRequest: the announced length is not a number, or a digest field cannot be read.
        """
        try:
            self.length = request.content_length
        except ClientException:
            raise MalformedRequest(reason="Content-Length is not a number") from None
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(limit=limit)
        self.limit = limit
        self.received = 0
        self.announced: list[Announced] = announced(request.headers.multi_items())
        self._digesting: Digesting | None = None
        self._stopping: Stopping = request.app.state.stopping
        self._receive: Callable[[], Awaitable[Any]] = request.receive
        self._ended = False
        self._least = max(1, int(least_rate * WINDOW_SECONDS))  # bytes in a window
        self._in_window = 0
        self._waited = 0.0

    def digest(self) -> None:
        """Hash what comes, if the client has said what it should be: for ``check``."""
        if self.announced:
            self._digesting = Digesting(*(one.algorithm for one in self.announced))

    async def check(self) -> None:
        """Raises DigestMismatch when the body, read to its end, is not what the client announced."""
        if self._digesting is not None:
            (await self._digesting.whole()).check(self.announced)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The pieces as the server hands them out, each up to some hundred KiB.

        Raises:
            BodyTooLarge: more than the limit came.
            ClientGone: the client closed the connection.
            UploadTooSlow: it sent less than the least rate in a window, however little less.
            ShuttingDown: the server is being stopped, and the body has not come in time.
        """
        while not self._ended:
            chunk = await self._next()
            self.received += len(chunk)
            if self.received > self.limit:
                raise BodyTooLarge(limit=self.limit)
            if chunk:
                if self._digesting is not None:
                    await self._digesting.update(chunk)
                yield chunk

    async def _next(self) -> bytes:
        """The next piece. Only waiting counts: while the store is slow, or memory is short, nobody waits for a client.

        Not by ``request.stream()``: a generator that a timeout has interrupted is over, and would pass for the end.
        """
        began, event = time.monotonic(), None
        with suppress(TimeoutError):
            async with asyncio.timeout(min(WINDOW_SECONDS - self._waited, LOOK_SECONDS)):
                event = await self._receive()
        if self._stopping.uploads_are_over:
            raise ShuttingDown(kept=NOTHING_KEPT, retry_after=1)
        self._waited += time.monotonic() - began
        chunk = b""
        if event is not None:
            if event["type"] == "http.disconnect":
                raise ClientGone
            chunk, self._ended = event["body"], not event["more_body"]
        self._in_window += len(chunk)
        if self._waited >= WINDOW_SECONDS:
            if self._in_window < self._least and not self._ended:
                raise UploadTooSlow(seconds=int(WINDOW_SECONDS), kept=NOTHING_KEPT)
            self._waited, self._in_window = 0.0, 0
        return chunk


class Form:
    """A multipart/form-data body as a stream of its parts (RFC 7578)."""

    def __init__(self, body: Body, content_type: str) -> None:
        """
        Raises:
            MalformedRequest: the content type names no boundary.
        """
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        if not 0 < len(boundary) <= 200:  # RFC 2046 5.1.1 allows 70
            raise MalformedRequest(reason="the content type names no boundary")
        self.body = body
        self.fields: dict[str, str] = {}
        self.file_bytes = 0
        self._fed = 0  # bytes of the body the parser was given
        self._by_lines = True  # so that it has been given nothing beyond what it has told of
        self._closing = len(boundary) + len("\r\n----")
        self._boundary = boundary
        self._field_bytes = 0
        self._events = self._parsed()

    async def until_file(self) -> MultipartSegment | None:
        """Read fields up to the next part that is a file, or to the end of the form."""
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if _is_file(event):
                    return event
                await self._read_field(event)
        return None

    def promise(self) -> Promise | None:
        """What the request's length says of the file that ``until_file`` has found; None where it has none.

        Nearly every client sends the file last and ends the form with the closing boundary and a line break.
        """
        length = self.body.length
        if length is None:
            return None
        if not self._by_lines:
            return Promise(least=max(0, length - BESIDE_BYTES), most=length)
        self._by_lines = False
        most = max(0, length - self._fed - self._closing)
        return Promise(least=max(0, most - BESIDE_BYTES), most=most, likely=max(0, most - len("\r\n")))

    async def file(self) -> AsyncIterator[bytes]:
        """The bytes of the file part that ``until_file`` has found."""
        async for event in self._events:
            if not isinstance(event, bytes):
                return
            self.file_bytes += len(event)
            yield event

    async def close(self) -> None:
        await self._events.aclose()

    async def _read_field(self, segment: MultipartSegment) -> None:
        value = bytearray()
        async for event in self._events:
            if not isinstance(event, bytes):
                break
            value += event
            if self._field_bytes + len(value) > FIELD_BYTES:
                raise MalformedRequest(reason=f"the fields hold more than {FIELD_BYTES} bytes")
        self._field_bytes += len(value)
        name = decode_text((segment.name or "").encode("latin-1"))
        if name in self.fields:
            raise MalformedRequest(reason="a field is given twice", field=name)
        if b"\0" in value:  # no text column can hold it
            raise MalformedRequest(reason="a field holds a NUL character", field=name)
        if len(self.fields) == FIELDS:
            raise MalformedRequest(reason=f"there are more than {FIELDS} fields")
        self.fields[name] = decode_text(bytes(value))

    async def _parsed(self) -> AsyncGenerator[MultipartSegment | bytes | None, None]:
        try:
            # latin-1 keeps every byte of the part headers: what encoding a name is in is decided later
            parser = PushMultipartParser(self._boundary, header_charset="latin-1")
            async for chunk in self.body.chunks():
                start = 0
                while start < len(chunk):
                    end = (chunk.find(b"\n", start) + 1 if self._by_lines else 0) or len(chunk)
                    self._fed += end - start
                    for event in parser.parse(chunk[start:end]):
                        yield event
                    start = end
                if self.body.received - self.file_bytes > BESIDE_BYTES:
                    raise MalformedRequest(reason=f"the form holds more than {BESIDE_BYTES} bytes beside the file")
            parser.close()
        except MultipartError as error:
            raise MalformedRequest(reason=str(error)) from None
        except UnicodeError:
            raise MalformedRequest(reason="the boundary is not ASCII") from None


def _is_file(segment: MultipartSegment) -> bool:
    # A file has a `filename`; some clients leave it out and only say of what type it is.
    return name_from(segment.header("Content-Disposition", "")) is not None or (
        segment.name == "file" and segment.content_type is not None
    )

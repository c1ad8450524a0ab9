"""HTTP as uvicorn speaks it, but with an end to a request's head: httptools sets none, and would take gigabytes.

And with a way past ASGI for those who send the same bytes to thousands (``Wire``).
"""

import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from httptools import HttpParserInvalidMethodError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import MEDIA_TYPE, problem
from domain.errors import MillraceError
from domain.errors.requests import MalformedRequest, MethodUnknown

HEAD_BYTES = 64 * 1024  # nginx and Apache stop at 8 to 32 KiB
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 40\r\n\r\nThe request's head is larger than 64 KiB"
)


WIRE = "millrace.wire"  # in the scope's extensions


class Wire:
    """The connection below one answer in chunks. Through ASGI each event costs each stream a task's turn and some ten
    calls; an event that is the same for all is put into a chunk once and written to each connection from here."""

    __slots__ = ("_cycle", "gone")

    def __init__(self) -> None:
        self._cycle: Any = None
        self.gone: Callable[[], None] | None = None  # called once the client has left: no task need wait for that

    @property
    def is_open(self) -> bool:
        return self._cycle is not None and not self._cycle.disconnected

    def is_below(self, cycle: Any) -> None:
        self._cycle = cycle

    def write(self, chunk: bytes) -> bool:
        """Write a whole chunk (``chunk_of``) if the connection takes it at once; else False, and nothing is done."""
        cycle = self._cycle
        if cycle is None or cycle.flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        if not (cycle.response_started and cycle.chunked_encoding) or cycle.transport.is_closing():
            return False
        cycle.transport.write(chunk)
        return True

    def cut(self) -> None:
        """Break the connection: whoever is at its other end does not read, and what waits for it is let go."""
        if self._cycle is not None:
            self._cycle.transport.abort()


def chunk_of(data: bytes) -> bytes:
    """RFC 9112, section 7.1."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class BoundedHeads(HttpToolsProtocol):
    """``uvicorn --http api.server:BoundedHeads``. 431 and the end of the connection for a head beyond the limit."""

    # uvicorn's own attributes are just few enough for a dict that shares its keys: some more would cost 1.3 KiB each
    __slots__ = ("_head", "_in_head", "_piece", "_wire")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = 0  # bytes of a head that is not whole yet, those of the piece in which it begins left out
        self._in_head = True
        self._piece = 0
        self._wire: Wire | None = None  # of the newest request

    def data_received(self, data: bytes) -> None:
        self._piece = len(data)
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses never reaches the application, and is answered like what it refuses."""
        unknown = isinstance(sys.exception(), HttpParserInvalidMethodError)
        self.transport.write(_refusal(MethodUnknown() if unknown else MalformedRequest(reason=msg)))
        self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, -self._piece
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._wire = wire = Wire()
        extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
        extensions[WIRE] = wire
        super().on_headers_complete()
        wire.is_below(self.cycle)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head = True, -self._piece  # of the next request on this connection

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._wire is not None and self._wire.gone is not None:
            self._wire.gone()
            self._wire.gone = None


def _refusal(error: MillraceError) -> bytes:
    body = msgspec.json.encode(problem(error, ""))
    return (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nconnection: close\r\n"
        f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body

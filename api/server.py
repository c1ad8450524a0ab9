"""HTTP as uvicorn speaks it, but with an end to a request's head: httptools sets none, and would take gigabytes."""

import sys
from http import HTTPStatus
from typing import Any

import msgspec
from httptools import HttpParserInvalidMethodError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import MEDIA_TYPE, problem
from domain.errors import MalformedRequest, MethodUnknown, MillraceError

HEAD_BYTES = 64 * 1024  # nginx and Apache stop at 8 to 32 KiB
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 40\r\n\r\nThe request's head is larger than 64 KiB"
)


class BoundedHeads(HttpToolsProtocol):
    """``uvicorn --http api.server:BoundedHeads``. 431 and the end of the connection for a head beyond the limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = 0  # bytes of a head that is not whole yet, those of the piece in which it begins left out
        self._in_head = True
        self._piece = 0

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
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head = True, -self._piece  # of the next request on this connection


def _refusal(error: MillraceError) -> bytes:
    body = msgspec.json.encode(problem(error, ""))
    return (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nconnection: close\r\n"
        f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body

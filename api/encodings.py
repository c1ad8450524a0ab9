"""Bodies that are packed: nothing here unpacks them, and a file is kept as the bytes it was sent as."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from domain.errors.requests import EncodingUnsupported, TransferCodingUnsupported

_SHOWN = 100  # letters of what was sent


def as_it_is(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Before a body is stored or parsed as something it is not.

    Raises:
        EncodingUnsupported: it is under `Content-Encoding` (RFC 9110, 8.4).
        TransferCodingUnsupported: it is packed on its way (RFC 9112, 6.1), which the server below does not undo.
    """
    encoding = connection.headers.get("content-encoding", "").strip()
    if encoding and encoding.lower() != "identity":
        raise EncodingUnsupported(encoding=encoding[:_SHOWN])
    coding = connection.headers.get("transfer-encoding", "").strip()
    if coding and coding.lower() != "chunked":
        raise TransferCodingUnsupported(coding=coding[:_SHOWN])

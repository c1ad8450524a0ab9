"""Bodies that are packed: nothing here unpacks them, and a file is kept as the bytes it was sent as."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from domain.errors.requests import EncodingUnsupported

_SHOWN = 100  # letters of what was sent


def as_it_is(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Raises EncodingUnsupported for a body under `Content-Encoding` (RFC 9110, 8.4): ignored, it would be stored or
    parsed as something it is not."""
    encoding = connection.headers.get("content-encoding", "").strip()
    if encoding and encoding.lower() != "identity":
        raise EncodingUnsupported(encoding=encoding[:_SHOWN])

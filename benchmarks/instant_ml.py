"""An ML service that is done at once, its result in place already: ``uvicorn benchmarks.instant_ml:app``."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

RESULT_BYTES = 400


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    asked = msgspec.json.decode(body)
    answer = msgspec.json.encode(
        {"job_uuid": asked["job_uuid"], "output_object": asked["output_object"], "file_size": RESULT_BYTES}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})

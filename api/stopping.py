"""The end of the process, for what must hear of it by itself: uvicorn waits for open requests before it ends the
lifespan, and cuts off in the middle, with a bare 500, whatever is not done when its patience is over."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

from litestar import Litestar

UPLOAD_SECONDS = 6.0  # what an upload may still take; the server waits for 8 (--timeout-graceful-shutdown)


class Stopping:
    """Whether SIGTERM has come, and who is to be told."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told: list[Callable[[], None]] = []

    def tell(self, callback: Callable[[], None]) -> None:
        """Call it on the event loop once the signal comes."""
        self._told.append(callback)

    @property
    def uploads_are_over(self) -> bool:
        return self._since is not None and time.monotonic() - self._since > UPLOAD_SECONDS

    def begin(self) -> None:
        self._since = time.monotonic()
        for callback in self._told:
            callback()


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """``app.state.stopping``; to be entered before what wants to be told."""
    app.state.stopping = stopping = Stopping()
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.begin)
        if callable(before := previous[number]):
            before(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError):  # not in the main thread, as under a test client
            previous[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for caught, before in previous.items():
            signal.signal(caught, before)

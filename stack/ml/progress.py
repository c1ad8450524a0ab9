"""Progress reports, from a thread of their own so that a slow listener never slows the work."""

import threading
from types import TracebackType
from typing import Self

import httpx

from stack.ml.exchange import Exchange

PAUSE = 0.2  # seconds between two reports; what happens in between is coalesced into the newest


class Progress:
    """Best effort: at most five reports a second, failures ignored, silent after the listener has refused one for good.

    Leaving the ``with`` block waits for a report on its way, so that none arrives after the completion.
    """

    def __init__(self, exchange: Exchange, url: str | None) -> None:
        self._exchange = exchange
        self._url = url
        self._newest = (0, "")
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)

    def tell(self, percent: int, message: str) -> None:
        self._newest = (percent, message)
        self._news.set()

    def __enter__(self) -> Self:
        if self._url:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._news.set()
        if self._url:
            self._thread.join(timeout=5.0)  # connecting and answering have 2 s each

    def _report(self) -> None:
        while self._news.wait() and not self._closed.is_set():
            self._news.clear()
            percent, message = self._newest
            try:
                status = self._exchange.progress(self._url or "", percent, message)
            except (httpx.HTTPError, httpx.InvalidURL):
                status = 0
            if httpx.codes.is_client_error(status) and status != httpx.codes.TOO_MANY_REQUESTS:
                return  # no such endpoint, or the job is over: asking five times a second changes neither
            self._closed.wait(PAUSE)

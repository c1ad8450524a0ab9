"""An ML service as patient as a real one: idempotent by key, and it calls back until somebody has taken it.

It lives in the process of the tests, so it remembers what it was asked while everything around it dies.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.scripted_ml import CSV, ScriptedMl

ROWS = CSV.count(b"\n") - 1  # of the result it delivers
PATIENCE_SECONDS = 60.0


class PatientMl(ScriptedMl):
    """Works on each idempotency key once, however often it is sent; ``seconds`` is how long a job takes it."""

    def __init__(self, token: str, seconds: float = 0.05) -> None:
        super().__init__(token)
        self.seconds = seconds
        self.received: Counter[str] = Counter()  # requests by idempotency key
        self.done: Counter[str] = Counter()  # results made by idempotency key
        self._declined: Counter[str] = Counter()
        self._seen = threading.Lock()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="ml")
        self._server.handle_error = self._client_died  # type: ignore[method-assign, assignment]

    def __enter__(self) -> "PatientMl":
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)
        super().__exit__(*_)

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if request["profile"] != "default":
            return super().answer(request)
        key = request["idempotency_key"]
        with self._seen:
            self.received[key] += 1
            first = self.received[key] == 1
        if first:
            self._pool.submit(self._work, request)
        return 202, {}, b"{}"

    @staticmethod
    def _client_died(*_: object) -> None:
        """Workers are killed in the middle of a request here; a traceback for each helps nobody."""

    def _work(self, request: dict[str, Any]) -> None:
        self._stopping.wait(self.seconds)
        deadline = time.monotonic() + PATIENCE_SECONDS
        if self._until_taken(deadline, self._delivered, request):
            with self._seen:
                self.done[request["idempotency_key"]] += 1
            self._until_taken(deadline, self._completed, request)

    def _until_taken(self, deadline: float, attempt: Any, request: dict[str, Any]) -> bool:
        while not self._stopping.is_set() and time.monotonic() < deadline:
            try:
                if attempt(request):
                    return True
            except httpx.HTTPError:
                pass
            self._stopping.wait(0.2)
        return False

    def _delivered(self, request: dict[str, Any]) -> bool:
        self.deliver(request)
        return True

    def _completed(self, request: dict[str, Any]) -> bool:
        """200; 404 and 409 say that nobody wants it any more, or not yet: five times, then it is believed."""
        status = self.complete(request, status="done", output_object=request["output_object"], file_size=len(CSV))
        with self._seen:
            self._declined[request["idempotency_key"]] += status in (404, 409)
            return status == 200 or self._declined[request["idempotency_key"]] >= 5

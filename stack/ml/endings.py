"""How work ends other than well."""

import threading
import time


class CannotInfer(Exception):
    """The work cannot be done; the argument is one clear sentence for the one who asked, without a URL."""


class Stopped(Exception):
    """The service is shutting down; nothing is said about the job, which can be asked for again."""


class Cancelled(Exception):
    """The one who asked does not want the job any more; nothing is said about it."""


class Deadline:
    """A moment in monotonic time, ``seconds`` from now, or the one in which ``cancelled`` is set."""

    def __init__(self, seconds: float, cancelled: threading.Event) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds
        self._cancelled = cancelled

    def check(self) -> None:
        """Raises Cancelled, or CannotInfer once the time is up."""
        if self._cancelled.is_set():
            raise Cancelled
        if time.monotonic() > self._at:
            raise CannotInfer(f"the work took longer than {self._seconds:g} s")

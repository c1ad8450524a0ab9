"""How work ends other than well."""

import time


class CannotInfer(Exception):
    """The work cannot be done; the argument is one clear sentence for the one who asked, without a URL."""


class Stopped(Exception):
    """The service is shutting down; nothing is said about the job, which can be asked for again."""


class Deadline:
    """A moment in monotonic time, ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def check(self) -> None:
        """Raises CannotInfer once the time is up."""
        if time.monotonic() > self._at:
            raise CannotInfer(f"the work took longer than {self._seconds:g} s")

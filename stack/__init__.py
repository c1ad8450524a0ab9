"""The world around Millrace on one machine: embedded PostgreSQL, Redis and S3, the processes, the demo."""


class StackFailed(Exception):
    """The stack cannot start or go on; the message is one line for the operator, ``tail`` the end of a log."""

    def __init__(self, message: str, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


class StackCancelled(Exception):
    """The operator asked to stop while the stack was still starting."""

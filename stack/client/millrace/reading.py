"""A file on its way to the server: read from disk as it is sent, and counted."""

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Progress = Callable[[int, int], None]  # (bytes sent, bytes in all)


class Counted:
    """What httpx reads a part of a form from, 64 KiB at a time; it takes the length from the descriptor."""

    def __init__(self, file: BinaryIO, size: int, progress: Progress | None) -> None:
        self._file, self._size, self._progress = file, size, progress
        self._sent = 0

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, place: int, whence: int = 0) -> int:
        self._sent = self._file.seek(place, whence)
        return self._sent

    def read(self, length: int = -1) -> bytes:
        chunk = self._file.read(length)
        self._sent += len(chunk)
        if self._progress is not None:
            self._progress(self._sent, self._size)
        return chunk


def media_type(path: Path) -> str:
    """By the name; the server judges by the content."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"

"""All local headers against the directory, by ranged reads: what an inspection does not see by itself.

An inspection reads the end of the file, so in an archive larger than 128 KiB most local headers stay unseen, and a
reader that goes by them may find something else. Looking at them costs a read for each member of more than 64 KiB, and
one for each 64 KiB of smaller members. What lies between the members is searched for more of them by reads of 128 KiB,
after all headers and the beginning of each gap have been looked at. The number of reads is bounded.
"""

import math
import time
from collections.abc import Callable

from domain.archives.layout import check_local_headers
from domain.archives.ranges import RangeReader
from domain.archives.shapes import Listing

WINDOW_BYTES = 64 * 1024


def compare_local_headers(
    read: RangeReader,
    size: int,
    listing: Listing,
    reads: int,
    seconds: float = math.inf,
    counted: Callable[[int, int], None] | None = None,
) -> str | None:
    """The warning that not every local header could be looked at within ``reads`` reads and ``seconds``, None when all
    were.

    ``counted(byte, bytes)`` is called with how far into the file the reads have come.

    Raises:
        ArchiveHeaderMismatch, ArchiveHiddenEntries: see the table in ``domain.archives``.
    """
    windows = _Windows(read, size, reads, time.monotonic() + seconds, counted)
    check_local_headers(listing.entries, windows, listing.summary.directory_offset)
    if windows.wanted_more:
        return f"local_headers: after {windows.made} reads the rest was not compared with the directory"
    return None


class _Windows:
    """A ``Peek`` that reads, a window at a time."""

    def __init__(
        self, read: RangeReader, size: int, reads: int, until: float, counted: Callable[[int, int], None] | None
    ) -> None:
        self._read, self._size, self._counted = read, size, counted
        self._most, self._until = reads, until
        self._start, self._held = 0, b""
        self.made = 0
        self.wanted_more = False

    def __call__(self, start: int, length: int) -> bytes | None:
        if start < self._start or start + length > self._start + len(self._held):
            if self.made >= self._most or time.monotonic() > self._until:
                self.wanted_more = True
            if self.wanted_more:
                return None
            self.made += 1
            self._start = start
            self._held = self._read(start, min(max(length, WINDOW_BYTES), self._size - start))
            if self._counted:
                self._counted(start, self._size)
        piece = self._held[start - self._start : start - self._start + length]
        return piece if len(piece) == length else None

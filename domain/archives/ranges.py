"""Bytes of a file that is somewhere else: every read is a request, so what was read once is kept."""

from collections.abc import Callable

from domain.errors.archives import ArchiveTruncated

RangeReader = Callable[[int, int], bytes]
"""``read(start, length)`` gives exactly that many bytes; it is only asked for ranges within the file."""


class Ranges:
    """A file of ``size`` bytes read in a few ranges, each remembered for ``peek``."""

    def __init__(self, read: RangeReader, size: int) -> None:
        self.size = size
        self._read = read
        self._seen: list[tuple[int, int, bytes]] = []

    def read(self, start: int, length: int) -> bytes:
        """Those bytes, from memory where one earlier range holds them all.

        Raises:
            ArchiveTruncated: the file is shorter than was promised.
        """
        if (known := self.peek(start, length)) is not None:
            return known
        got = self._read(start, length)
        if len(got) != length:
            raise ArchiveTruncated(reason=f"{length} bytes were asked for at byte {start}, {len(got)} came")
        self._seen.append((start, start + length, got))
        return got

    def peek(self, start: int, length: int) -> bytes | None:
        """Those bytes if they have been read already; never a request."""
        for first, last, held in self._seen:
            if first <= start and start + length <= last:
                return held[start - first : start - first + length]
        return None

    def lowest(self) -> int:
        """The first byte that has been read."""
        return min((first for first, _, _ in self._seen), default=self.size)

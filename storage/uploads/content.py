"""What is learned of a file while its bytes go by: its SHA-256 and, of an archive, its members' own headers."""

import hashlib
from collections.abc import Iterable, Iterator

from domain.archives.walking import Walker

# Pieces are joined up to this size: some clients send a few bytes at a time, and a walk starts anew with each piece.
_JOINED = 256 * 1024


class Content:
    """Of the bytes from the first one on, in order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._walker: Walker | None = Walker()

    def update(self, pieces: Iterable[bytes]) -> None:
        for piece in joined(pieces, _JOINED):
            self._sha256.update(piece)
            if self._walker is not None:
                self._walker.feed(piece)

    def rest(self, most: int) -> None:
        """Between two requests: keep no more than ``most`` bytes of the file itself."""
        if self._walker is not None and self._walker.held > most:
            self._walker = None

    @property
    def sha256(self) -> str:
        """In hexadecimal digits."""
        return self._sha256.hexdigest()

    @property
    def local_headers(self) -> str | None:
        return self._walker.seen if self._walker is not None else None


def joined(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of at least ``size``, but for the last one."""
    held: list[bytes] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= size:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)

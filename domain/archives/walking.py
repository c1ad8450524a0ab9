"""Local headers as an upload passes by, to be compared with the directory once that is read.

An inspection reads the end of an archive; what its members' own headers say it would have to fetch one by one. While
the bytes come anyway, each header says how far the next one is (APPNOTE 4.3.7), so walking from one to the next costs
microseconds a member. It ends at a member whose size comes only after its data (flag bit 3): finding the end of that
would mean unpacking it.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator

from domain.archives.directory import ENCRYPTED
from domain.archives.ends import CENTRAL, LOCAL
from domain.archives.entries import METHODS
from domain.archives.fields import UTF8, extra_fields
from domain.archives.shapes import Entry
from domain.errors import ArchiveInconsistent

_LOCAL = struct.Struct("<4sxxHHxxxxIIIHH")
_SAID = struct.Struct("<QHHIQQ")
_DESCRIBED = 0x0008
_U32 = 0xFFFFFFFF
_CODES = {name: code for code, name in METHODS.items()}


class Walker:
    """Feed it the file from its first byte on, in pieces of any size; ``seen`` is the answer at any time."""

    def __init__(self) -> None:
        self._at = 0  # how much was fed
        self._next = 0  # where the next header is
        self._held = b""  # of a header that is not whole yet; at most 128 KiB
        self._over = False
        self._complete = False
        self._count = 0
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def seen(self) -> str | None:
        """``{members}{+ if the directory follows them}:{digest}``, None where there was nothing to walk."""
        return f"{self._count}{'+' if self._complete else ''}:{self._hash.hexdigest()}" if self._count else None

    def feed(self, piece: bytes) -> None:
        base = self._at - len(self._held)
        self._at += len(piece)
        if self._over or self._next >= self._at:
            return
        data = self._held + piece if self._held else piece
        self._held = b""
        while not self._over:
            at = self._next - base
            if at >= len(data):
                return
            length = self._take(data, at)
            if not length:
                if not self._over:
                    self._held = data[at:]
                return
            self._next += length

    def _take(self, data: bytes, at: int) -> int:
        """Note the header at ``at``; bytes to the next one, 0 where it is not whole or the walk is over."""
        if len(data) - at < _LOCAL.size:
            return 0
        signature, flags, code, crc, packed, size, named, extra = _LOCAL.unpack_from(data, at)
        if signature != LOCAL or flags & _DESCRIBED:
            self._over, self._complete = True, signature == CENTRAL
            return 0
        head: int = _LOCAL.size + named + extra
        if len(data) - at < head:
            return 0
        name = data[at + _LOCAL.size : at + _LOCAL.size + named]
        if _U32 in (packed, size):
            wide = _wide(data[at + _LOCAL.size + named : at + head], name, packed, size)
            if wide is None:
                self._over = True
                return 0
            packed, size = wide
        self._count += 1
        self._hash.update(_token(self._next, code, flags, crc, packed, size, name))
        return head + int(packed)


def agrees(seen: str, entries: Iterable[Entry]) -> bool:
    """Whether the directory says the same of the members a ``Walker`` has seen."""
    said, _, digest = seen.partition(":")
    count = int(said.removesuffix("+"))
    found = hashlib.blake2b(digest_size=16)
    number = 0
    for number, entry in enumerate(_in_order(entries), 1):
        if number > count:
            return found.hexdigest() == digest and not said.endswith("+")
        code = _CODES[entry.method]
        sizes = (entry.crc32, entry.compressed_size, entry.size)
        found.update(_token(entry.header_offset, code, entry.flags, *sizes, entry.raw_name))
    return number == count and found.hexdigest() == digest


def _in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """As they lie in the file: nearly always as they are listed, and then nothing is kept."""
    last = -1
    for entry in entries:
        if entry.header_offset < last:
            break
        last = entry.header_offset
    else:
        return iter(entries)
    return iter(sorted(entries, key=lambda entry: entry.header_offset))


def _token(offset: int, code: int, flags: int, crc: int, packed: int, size: int, name: bytes) -> bytes:
    # how a name is encoded counts only where there is something to encode
    kept = flags & (ENCRYPTED if name.isascii() else ENCRYPTED | UTF8)
    return _SAID.pack(offset, code, kept, crc, packed, size) + len(name).to_bytes(2, "little") + name


def _wide(extra: bytes, name: bytes, packed: int, size: int) -> tuple[int, int] | None:
    """The sizes with their ZIP64 values (APPNOTE 4.5.3); None where they are not there."""
    try:
        field = extra_fields(extra, name).get(0x0001, b"")
    except ArchiveInconsistent:  # the inspection says what is wrong
        return None
    wanted = (size == _U32) + (packed == _U32)
    if len(field) < 8 * wanted:
        return None
    values = iter(struct.unpack_from(f"<{wanted}Q", field))
    size = next(values) if size == _U32 else size
    return (next(values) if packed == _U32 else packed), size

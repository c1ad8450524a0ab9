"""Local headers as an upload passes by, to be compared with the directory once that is read.

An inspection reads the end of an archive; what its members' own headers say it would have to fetch one by one. While
the bytes come anyway, each header says how far the next one is (APPNOTE 4.3.7), so walking from one to the next costs
microseconds a member. Where the sizes follow the data (flag bit 3, as in what was written to a pipe) the end is found
by the data descriptor's signature with a packed size that is the number of bytes gone by, and another header after it
(4.3.9). That costs a search through the data: 0.4 s of CPU a GiB, where SHA-256 takes 0.7. A descriptor without its
signature ends the walk.
"""

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from domain.archives.columns import ENCRYPTED
from domain.archives.ends import CENTRAL, LOCAL
from domain.archives.entries import METHODS
from domain.archives.fields import UTF8, extra_fields
from domain.archives.shapes import Entry
from domain.errors.archives import ArchiveInconsistent

_LOCAL = struct.Struct("<4sxxHHxxxxIIIHH")
_SAID = struct.Struct("<QHHIQQ")
_DESCRIBED = 0x0008
_U32 = 0xFFFFFFFF
_CODES = {name: code for code, name in METHODS.items()}

_SIGNATURE = b"PK\x07\x08"
_signature = re.compile(re.escape(_SIGNATURE))  # half as long as bytes.find() takes for four bytes
# crc, packed and unpacked size, the signature of what follows (APPNOTE 4.3.9.2: 64 bits in a ZIP64 archive)
_DESCRIPTORS = (struct.Struct("<4xIII4s"), struct.Struct("<4xIQQ4s"))
_LONGEST = max(form.size for form in _DESCRIPTORS)
# Signatures that are none: looking at one takes a microsecond, and a body may be made of nothing else. Random data have
# one in 4 GiB, archives stored within others one for each of their members.
_FALSE_MOST, _FALSE_EVERY = 4096, 16 * 1024

HELD_BYTES = 128 * 1024  # at most, of a header that is not whole yet


class _Described(NamedTuple):
    """A member whose end is being looked for, with what its header says of the sizes all the same."""

    offset: int
    code: int
    flags: int
    name: bytes
    said: tuple[int, int, int]  # crc, packed, unpacked
    start: int  # of its data


class Walker:
    """Feed it the file from its first byte on, in pieces of any size; ``seen`` is the answer at any time."""

    def __init__(self) -> None:
        self._at = 0  # how much was fed
        self._next = 0  # where the next header is, or where to look on for a descriptor
        self._held = b""  # of what is not whole yet
        self._described: _Described | None = None
        self._false = 0
        self._over = False
        self._complete = False
        self._plain = True  # no header said anything that only a closer look can judge
        self._count = 0
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def seen(self) -> str | None:
        """``{members}{+ if a directory follows them}:{digest}{=where, if no header needs another look}``.

        None where there was nothing to walk.
        """
        if not self._count:
            return None
        where = f"={self._next}" if self._complete and self._plain else ""
        return f"{self._count}{'+' if self._complete else ''}:{self._hash.hexdigest()}{where}"

    @property
    def held(self) -> int:
        """Bytes it keeps in memory."""
        return len(self._held)

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
            length = self._take(data, at) if self._described is None else self._search(data, at, self._described)
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
        if signature != LOCAL:
            self._over, self._complete = True, signature == CENTRAL
            return 0
        head: int = _LOCAL.size + named + extra
        if len(data) - at < head:
            return 0
        name = data[at + _LOCAL.size : at + _LOCAL.size + named]
        if extra:
            field = data[at + _LOCAL.size + named : at + head]
            # a Unicode Path, or what says the same twice: compared by who reads the header again
            self._plain = self._plain and b"up" not in field and _sound(field, name)
            if _U32 in (packed, size):
                wide = _wide(field, name, packed, size)
                if wide is None:
                    self._over = True
                    return 0
                packed, size = wide
        elif _U32 in (packed, size):
            self._over = True
            return 0
        if flags & _DESCRIBED:
            self._described = _Described(self._next, code, flags, name, (crc, packed, size), self._next + head)
            return head
        self._note(_token(self._next, code, flags, crc, packed, size, name))
        return head + int(packed)

    def _search(self, data: bytes, at: int, member: _Described) -> int:
        """Bytes to where the search goes on, or to the next header; 0 where more must come or the walk is over."""
        found = _signature.search(data, at)
        if found is None:
            return len(data) - at - _begun(data, at)
        if found.start() > at:
            return found.start() - at
        if len(data) - at < _LONGEST:
            return 0
        passed = self._next - member.start
        for form in _DESCRIPTORS:
            crc, packed, size, following = form.unpack_from(data, at)
            if packed == passed and following in (LOCAL, CENTRAL):
                self._described = None
                self._note(_token(member.offset, member.code, member.flags, crc, packed, size, member.name))
                if any(said not in (0, told) for said, told in zip(member.said, (crc, packed, size), strict=True)):
                    self._hash.update(_SIGNATURE)  # header and descriptor contradict each other: agrees with nothing
                return form.size - len(following)
        self._false += 1
        self._over = self._false > _FALSE_MOST + self._next // _FALSE_EVERY
        return 0 if self._over else len(_SIGNATURE)

    def _note(self, token: bytes) -> None:
        self._count += 1
        self._hash.update(token)


def _begun(data: bytes, at: int) -> int:
    """How many bytes at the end may be the beginning of a signature."""
    for length in range(len(_SIGNATURE) - 1, 0, -1):
        if data.endswith(_SIGNATURE[:length], at):
            return length
    return 0


def agrees(seen: str, entries: Iterable[Entry]) -> bool:
    """Whether the directory says the same of the members a ``Walker`` has seen."""
    said, _, digest = seen.partition("=")[0].partition(":")
    members = count(seen)
    found = hashlib.blake2b(digest_size=16)
    number = 0
    for number, entry in enumerate(_in_order(entries), 1):
        if number > members:
            return found.hexdigest() == digest and not said.endswith("+")
        code = _CODES[entry.method]
        sizes = (entry.crc32, entry.compressed_size, entry.size)
        found.update(_token(entry.header_offset, code, entry.flags, *sizes, entry.raw_name))
    return number == members and found.hexdigest() == digest


def covers(seen: str, directory_offset: int) -> bool:
    """Whether a ``Walker`` that ``agrees`` has looked at all that a deep inspection would: at every member, and there
    is nothing between them and the directory. What earlier versions noted says less, and is never enough."""
    return seen.partition("=")[2] == str(directory_offset)


def reached(seen: str, directory_offset: int) -> bool:
    """Whether a ``Walker`` that ``agrees`` went from member to member up to the directory."""
    walked, _, where = seen.partition("=")
    return walked.partition(":")[0].endswith("+") and where in ("", str(directory_offset))


def count(seen: str) -> int:
    """How many members a ``Walker`` has seen."""
    return int(seen.partition(":")[0].removesuffix("+"))


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


def _sound(extra: bytes, name: bytes) -> bool:
    """Whether no field that counts comes twice; a damaged rest is the directory's business."""
    if b"\x01\x00" not in extra:
        return True
    try:
        extra_fields(extra, name)
    except ArchiveInconsistent:
        return False
    return True


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

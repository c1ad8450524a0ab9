"""Entries read from the directory each time they are asked for.

A million of them as objects would take half a gigabyte; the directory's own bytes hold the same in a tenth.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import overload

from domain.archives import names
from domain.archives.content_types import TypesBySuffix
from domain.archives.fields import Notes, extended
from domain.archives.shapes import Entry

# host, flags, method, date and time, crc, 2 sizes, lengths of name, extra, comment, disk, attributes, offset
_CENTRAL = struct.Struct("<5xBxxHHIIIIHHHHxxII")
_U16, _U32 = 0xFFFF, 0xFFFFFFFF

# Whole extra fields of times and owners, in which bytes may look like what counts: Info-ZIP's UT and ux, NTFS's times
# (APPNOTE 4.5.5), and a ZIP64 field with nothing in it. One look at all of them takes a tenth of reading them.
HARMLESS = re.compile(
    rb"(?:\x01\x00\x00\x00)?(?:UT\x05\x00.{5}|UT\x09\x00.{9}|UT\x0d\x00.{13}|ux\x0b\x00.{11}|\x0a\x00\x20\x00.{32})*",
    re.DOTALL,
).fullmatch
METHODS = {0: "stored", 8: "deflated", 12: "bzip2", 14: "lzma"}
FOLDER_BITS = 0x10  # of DOS attributes


class Entries(Sequence[Entry]):
    """The entries of a directory that has been judged sound, in its order; nothing but its bytes is kept.

    Iterating takes about 2 µs an entry; ``entries[n]`` walks there.
    """

    def __init__(self, data: bytes, count: int, prefix: int) -> None:
        self._data, self._count, self._prefix = data, count, prefix
        self.page = "cp437"  # of names that are neither marked nor UTF-8
        self.page_known = False

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return self.between(0, 0, self._count)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return list(self)[index]
        place = index + self._count if index < 0 else index
        for entry in islice(self, max(place, 0), None) if place >= 0 else ():
            return entry
        raise IndexError(index)

    def between(self, at: int, first: int, count: int) -> Iterator[Entry]:
        """``count`` entries from byte ``at`` of the directory, where the one numbered ``first`` begins."""
        data, prefix, types, clock = self._data, self._prefix, TypesBySuffix(), _Clock()
        for index in range(first, first + count):
            (host, flags, code, stamp, crc, packed, size, named, extra, remark, disk, attributes, offset) = (
                _CENTRAL.unpack_from(data, at)
            )
            at += 46
            raw = data[at : at + named]
            at += named
            field = data[at : at + extra]
            at += extra + remark
            name = ""
            if needs_fields(field, disk, packed, size, offset):
                packed, size, offset, name = extended(field, packed, size, offset, disk, flags, raw, Notes())
            name = name or self.text(raw)
            is_folder = raw[-1:] == b"/" or bool(attributes & FOLDER_BITS) or attributes >> 28 == 0x4
            kind = None if is_folder else types[name[name.rfind(".") :]]
            yield Entry(
                index, name, raw, size, packed, crc, METHODS[code], clock[stamp], is_folder, False, offset + prefix,
                flags, host, attributes, kind,
            )  # fmt: skip

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return names.decode(raw, self.page)


def needs_fields(field: bytes, disk: int, packed: int, size: int, offset: int) -> bool:
    """Whether extra fields may say something that counts here: most are times and owners, which nobody needs."""
    if field and (b"\x01\x00" in field or b"up" in field) and not HARMLESS(field):
        return True
    return bool(disk) or _U32 in (packed, size, offset)


class _Clock(dict[int, datetime | None]):
    """``clock[stamp]`` for a DOS date << 16 | time (APPNOTE 4.4.6); many entries share one."""

    def __missing__(self, stamp: int) -> datetime | None:
        date, time = stamp >> 16, stamp & _U16
        try:
            moment = datetime(
                1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, 2 * (time & 31)
            )
        except ValueError:
            moment = None
        if len(self) > 10_000:
            self.clear()
        self[stamp] = moment
        return moment

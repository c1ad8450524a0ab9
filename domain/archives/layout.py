"""Where the members lie, and whether their local headers (APPNOTE 4.3.7) say what the directory says."""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from domain.archives.columns import ENCRYPTED
from domain.archives.directory import SLACK, Directory
from domain.archives.ends import LOCAL, SPAN_MARKERS, End
from domain.archives.entries import METHODS
from domain.archives.fields import UTF8, extra_fields
from domain.archives.names import unicode_path
from domain.archives.ranges import Ranges
from domain.archives.shapes import Entry, Limits, shown
from domain.errors.archives import (
    ArchiveHeaderMismatch,
    ArchiveHiddenEntries,
    ArchiveInconsistent,
    ArchiveOverlap,
    ArchiveRatio,
    ArchiveTooLarge,
)

Peek = Callable[[int, int], bytes | None]
"""``peek(start, length)`` gives exactly those bytes of the file, or None to leave what depends on them unchecked."""

_LOCAL = struct.Struct("<4sxxHHxxxxIIIHH")
_DESCRIPTOR = b"PK\x07\x08"
_DESCRIBED = 0x0008  # flag: crc and sizes follow the data (APPNOTE 4.3.9)
_HEAD_BYTES = 128 * 1024
PIECE_BYTES = 128 * 1024  # of a gap, looked at together; twice the longest header with its name
_U32 = 0xFFFFFFFF
_CODES = {name: code for code, name in METHODS.items()}


def check_totals(found: Directory, limits: Limits) -> None:
    """Raises ArchiveBomb for an archive that is too much as a whole."""
    if found.size > limits.max_unpacked_bytes:
        raise ArchiveTooLarge(size=found.size, limit=limits.max_unpacked_bytes)
    if found.size > limits.ratio_floor_bytes and found.size > limits.max_ratio * found.compressed_size:
        raise ArchiveRatio(
            reason=f"{found.compressed_size} bytes unpack to {found.size}, more than {limits.max_ratio} times"
        )


def check_layout(found: Directory, end: End, ranges: Ranges) -> None:
    """Members may neither overlap nor reach into the directory; what lies between and before them is looked at.

    Reads the head of the file where the first member does not begin it.

    Raises:
        ArchiveOverlap: members overlap.
        ArchiveInconsistent: a member reaches into the directory, hidden members are visible, or a local header that
            has been read contradicts the directory.
    """
    if not len(found.entries):
        return
    if not found.ordered:
        _put_in_order(found)
    if found.reached > end.directory:
        raise ArchiveInconsistent(reason="a member reaches into the directory")
    if found.gaps or end.directory - found.reached > SLACK:
        found.warnings["unreferenced"] = "there are bytes between the members that belong to none"
    _check_prefix(found, found.first, end, ranges)
    if ranges.lowest() >= end.directory:
        return  # no member has been read, and asking a million times would show the same
    if idle := check_local_headers(found.entries, ranges.peek, end.directory):
        found.warnings["unreferenced"] = f"at least {idle} bytes between the members belong to none"


def _put_in_order(found: Directory) -> None:
    """Raises ArchiveOverlap where the members overlap; where only their order in the directory is another, fills in
    what the loop could not see."""
    starts, stops = array("Q"), array("Q")
    for entry in found.entries:
        starts.append(entry.header_offset)
        stops.append(entry.header_offset + _LOCAL.size + len(entry.raw_name) + entry.compressed_size)
    order = sorted(range(len(starts)), key=starts.__getitem__)
    found.gaps = False
    for before, after in pairwise(order):
        between = starts[after] - stops[before]
        if between < 0:
            raise ArchiveOverlap(entry=shown(found.entries[after].name))
        found.gaps = found.gaps or between > SLACK
    found.first, found.reached = starts[order[0]], stops[order[-1]]


def _check_prefix(found: Directory, first: int, end: End, ranges: Ranges) -> None:
    if not first:
        return
    head = ranges.read(0, min(first + _LOCAL.size, _HEAD_BYTES, ranges.size))
    if first == 4 and not end.prefix and head.startswith(SPAN_MARKERS):
        return  # a marker its own offsets count; 7-Zip does not open an archive whose offsets do not
    if head.startswith(LOCAL) or _holds_member(head[:first]):
        raise ArchiveHiddenEntries(reason="before the first one of the directory")
    found.warnings["prefix"] = f"{first} bytes precede the first member, as in a self-extracting archive"


def _holds_member(between: bytes) -> bool:
    """Whether a local header that makes sense lies in bytes that should hold none."""
    return _look_for_member(between)[0]


def _look_for_member(between: bytes) -> tuple[bool, int]:
    """Whether a local header that makes sense is there, and where the first one that is not whole begins, if any."""
    at = between.find(LOCAL)
    cut = len(between)
    while at >= 0:
        if at + _LOCAL.size > len(between):
            return False, min(cut, at)
        _, _, code, _, _, _, named, _ = _LOCAL.unpack_from(between, at)
        if code < 100 and named:
            name = between[at + _LOCAL.size : at + _LOCAL.size + named]
            if len(name) < named:
                cut = min(cut, at)
            elif b"\0" not in name:
                return True, at
        at = between.find(LOCAL, at + 1)
    return False, min(cut, max(0, len(between) - len(LOCAL) + 1))


def _member_between(start: int, stop: int, peek: Peek) -> bool:
    """``_holds_member`` for a gap of any length, piece by piece, as far as ``peek`` gives them."""
    while start < stop:
        length = min(PIECE_BYTES, stop - start)
        if (piece := peek(start, length)) is None:
            return False
        found, on = _look_for_member(piece)
        if found:
            return True
        if length == stop - start:
            return False
        start += on  # a header that is not whole begins the next piece
    return False


def check_local_headers(entries: Sequence[Entry], peek: Peek, directory_offset: int) -> int:
    """Compare each local header and data descriptor ``peek`` gives with its entry; look between the members.

    ``inspect`` gives what it has read anyway, which is all of an archive up to 128 KiB. A deeper inspection passes a
    ``peek`` that reads: it is asked for 30 bytes at each header, its name and extra field, 24 bytes after the data, and
    for what lies between the members in pieces of at most ``PIECE_BYTES``, the first of each gap before the others.

    Returns:
        Bytes between visible members that belong to none.

    Raises:
        ArchiveInconsistent: see the table in ``domain.archives``.
    """
    starts = sorted(entry.header_offset for entry in entries)
    idle = 0
    long: list[tuple[Entry, int, int]] = []
    for entry in entries:
        following = bisect_right(starts, entry.header_offset)
        stop = starts[following] if following < len(starts) else directory_offset
        reach = _check_local_header(entry, stop, peek)
        if reach is not None and reach < stop:
            if _member_between(reach, min(stop, reach + PIECE_BYTES), peek):
                raise _hidden(entry)
            if stop - reach > PIECE_BYTES:
                long.append((entry, reach, stop))
            idle += stop - reach
    for entry, start, stop in long:  # after all headers and the beginning of each gap, for reads may be counted
        if _member_between(start, stop, peek):
            raise _hidden(entry)
    return idle


def _check_local_header(entry: Entry, stop: int, peek: Peek) -> int | None:
    """Where the member truly ends, which must not be after ``stop``; None where that cannot be seen."""
    start = entry.header_offset
    header = peek(start, _LOCAL.size)
    if header is None:
        return None
    signature, flags, code, crc, packed, size, named, extra = _LOCAL.unpack(header)
    if signature != LOCAL:
        raise _contradiction(entry, "is not there")
    if (flags ^ entry.flags) & ENCRYPTED:
        raise _contradiction(entry, "differs in encryption")
    if code != _CODES[entry.method]:
        raise _contradiction(entry, "has another method")
    if named != len(entry.raw_name):
        raise _contradiction(entry, "has another name")
    rest = peek(start + _LOCAL.size, named + extra)
    if rest is None:
        return None
    packed, size = _check_names(entry, rest, flags, packed, size)
    data_end: int = start + _LOCAL.size + named + extra + entry.compressed_size
    if data_end > stop:
        raise _contradiction(entry, "makes it reach into what follows")
    local, listed = (crc, packed, size), (entry.crc32, entry.compressed_size, entry.size)
    if not flags & _DESCRIBED:
        if local != listed:
            raise _contradiction(entry, "has another checksum or size")
        return data_end
    if any(ours not in (0, theirs) for ours, theirs in zip(local, listed, strict=True)):
        raise _contradiction(entry, "has another checksum or size")
    return _after_descriptor(entry, peek(data_end, min(24, stop - data_end)), data_end, complete=local == listed)


def _check_names(entry: Entry, rest: bytes, flags: int, packed: int, size: int) -> tuple[int, int]:
    """Names must be the same byte for byte. Returns the sizes with their ZIP64 values."""
    raw, extra = rest[: len(entry.raw_name)], rest[len(entry.raw_name) :]
    if raw != entry.raw_name or ((flags ^ entry.flags) & UTF8 and not raw.isascii()):
        raise _contradiction(entry, "has another name")
    fields = extra_fields(extra, raw)
    path = fields.get(0x7075)
    if path and unicode_path(path, raw) not in (None, entry.name):
        raise _contradiction(entry, "has another Unicode name")
    wide = fields.get(0x0001, b"")
    wanted = (size == _U32) + (packed == _U32)
    if wanted and len(wide) >= 8 * wanted:
        values = iter(struct.unpack_from(f"<{wanted}Q", wide))
        size = next(values) if size == _U32 else size
        packed = next(values) if packed == _U32 else packed
    return packed, size


def _after_descriptor(entry: Entry, found: bytes | None, data_end: int, *, complete: bool) -> int | None:
    """The end of a data descriptor with 32 or 64 bit sizes, with its optional signature or without."""
    if found is None:
        return None
    for sizes in ("<III", "<IQQ") if entry.compressed_size <= _U32 and entry.size <= _U32 else ("<IQQ",):
        expected = struct.pack(sizes, entry.crc32, entry.compressed_size, entry.size)
        for form in (_DESCRIPTOR + expected, expected):
            if found.startswith(form):
                return data_end + len(form)
    if complete:  # some writers set the flag, fill the header after all and leave the descriptor out
        return data_end
    raise _contradiction(entry, "has a data descriptor with another checksum or size")


def _hidden(entry: Entry) -> ArchiveHiddenEntries:
    return ArchiveHiddenEntries(reason=f"after {shown(entry.name)!r}", entry=shown(entry.name))


def _contradiction(entry: Entry, what: str) -> ArchiveHeaderMismatch:
    return ArchiveHeaderMismatch(reason=what, entry=shown(entry.name))

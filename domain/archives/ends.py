"""The end of the central directory (APPNOTE 4.3.16) and its ZIP64 form (4.3.14, 4.3.15)."""

import struct

import msgspec

from domain.archives.ranges import Ranges
from domain.archives.shapes import Limits
from domain.errors.archives import (
    ArchiveDirectoryTooLarge,
    ArchiveInconsistent,
    ArchiveNotZip,
    ArchiveTooManyEntries,
    ArchiveTrailingData,
    ArchiveTruncated,
    ArchiveTwoDirectories,
    ArchiveUnsupported,
    ArchiveVolumes,
)

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
SPAN_MARKERS = (b"PK\x07\x08", b"PK00")  # of a split archive, and of one that turned out not to need splitting (8.5.4)

TAIL_BYTES = 128 * 1024  # twice the longest end with its comment, so a small archive is seen whole in one read
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_U16, _U32 = 0xFFFF, 0xFFFFFFFF


class End(msgspec.Struct, frozen=True):
    """Where the directory lies. Positions count from the start of the file, in bytes."""

    entries: int
    directory: int
    directory_size: int
    prefix: int  # bytes before the archive that its own offsets do not count
    zip64: bool
    comment: bytes


class _Record(msgspec.Struct):
    """The fields both forms of the end share, in their order."""

    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    size: int
    offset: int


def find_end(ranges: Ranges, limits: Limits) -> End:
    """Read the tail and settle on the one end of directory.

    Raises:
        ArchiveNotZip, ArchiveTruncated, ArchiveInconsistent, ArchiveUnsupported: there is no single sound end.
        ArchiveBomb: the end announces more than the limits allow.
    """
    tail_start = max(0, ranges.size - TAIL_BYTES)
    tail = ranges.read(tail_start, ranges.size - tail_start) if ranges.size else b""
    position = _only_end(ranges, tail)
    _, *fields, _ = _END.unpack_from(tail, position)
    record, edge, zip64 = _Record(*fields), tail_start + position, False
    if position >= _LOCATOR.size and tail.startswith(LOCATOR64, position - _LOCATOR.size):
        record, edge = _zip64_end(tail, tail_start, position - _LOCATOR.size, record)
        zip64 = True
    prefix = edge - record.size - record.offset
    _check(record, prefix, edge, limits)
    return End(
        entries=record.entries,
        directory=edge - record.size,
        directory_size=record.size,
        prefix=prefix,
        zip64=zip64,
        comment=tail[position + _END.size :],
    )


def _only_end(ranges: Ranges, tail: bytes) -> int:
    """The position in the tail of the one end whose comment closes the file.

    Readers differ in which signature they take (the last, the first whose comment fits), so all must agree. Signatures
    before the end are ordinary: a stored member can be an archive itself.
    """
    found: list[int] = []
    at = tail.find(END, max(0, len(tail) - _END.size - _U16))
    while at >= 0:
        found.append(at)
        at = tail.find(END, at + 1)
    closing = [at for at in found if at + _END.size <= len(tail) and _closes(tail, at) == len(tail)]
    if not closing:
        raise _why_no_end(ranges, tail, found)
    if closing[0] != found[-1]:
        raise ArchiveTwoDirectories(reason="one end lies within the other's comment")
    return closing[0]


def _closes(tail: bytes, at: int) -> int:
    return at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little")


def _why_no_end(ranges: Ranges, tail: bytes, found: list[int]) -> Exception:
    head = ranges.read(0, min(4, ranges.size)) if ranges.size else b""
    if head == SPAN_MARKERS[0]:
        return ArchiveVolumes()
    if found:
        at = found[-1]
        if at + _END.size > len(tail) or _closes(tail, at) > len(tail):
            return ArchiveTruncated(reason="the end of the directory is cut")
        size, offset = struct.unpack_from("<II", tail, at + 12)
        # an end that fits this very file was followed by something; any other belongs to a member that is an archive
        if head != LOCAL or ranges.size - len(tail) + at == size + offset or _U32 in (size, offset):
            return ArchiveTrailingData(length=len(tail) - _closes(tail, at))
    if head and (LOCAL.startswith(head) or END.startswith(head)):
        return ArchiveTruncated(reason="the end of the directory is missing")
    return ArchiveNotZip()


def _zip64_end(tail: bytes, tail_start: int, locator: int, short: _Record) -> tuple[_Record, int]:
    """The ZIP64 record and its position in the file; it must repeat the short one wherever that says anything."""
    _, disk, promised, disks = _LOCATOR.unpack_from(tail, locator)
    if disk or disks > 1:
        raise ArchiveVolumes()
    # without extensible data the record ends at the locator; the promised offset would not count a prefix
    at = locator - _END64.size
    if at < 0 or not tail.startswith(END64, at):
        at = promised - tail_start
    if not 0 <= at <= locator - _END64.size or not tail.startswith(END64, at):
        raise ArchiveInconsistent(reason="the ZIP64 end of the directory is not where its locator says")
    _, length, _, needed, *fields = _END64.unpack_from(tail, at)
    record, edge = _Record(*fields), tail_start + at
    if at + 12 + length != locator:
        raise ArchiveInconsistent(reason="the ZIP64 end of the directory has a wrong length")
    if length > 44 and needed & 0xFF >= 62:
        raise ArchiveUnsupported(reason="its directory is compressed or encrypted")  # APPNOTE 7.3.4, version 2
    if promised != record.offset + record.size:  # neither counts a prefix
        raise ArchiveInconsistent(reason="the ZIP64 end of the directory is not where its locator says")
    for name, mark in zip(short.__struct_fields__, (_U16, _U16, _U16, _U16, _U32, _U32), strict=True):
        if getattr(short, name) not in (mark, getattr(record, name)):
            raise ArchiveInconsistent(reason="the two ends of the directory, ZIP64 and plain, contradict each other")
    return record, edge


def _check(record: _Record, prefix: int, edge: int, limits: Limits) -> None:
    if record.disk or record.directory_disk:
        raise ArchiveVolumes()
    if record.entries_here != record.entries:
        raise ArchiveInconsistent(reason=f"it counts {record.entries} entries, and {record.entries_here} in one volume")
    if record.entries > limits.max_entries:
        raise ArchiveTooManyEntries(entries=record.entries, limit=limits.max_entries)
    if prefix < 0:
        raise ArchiveTruncated(reason=f"{-prefix} bytes are missing before the end of the directory")
    if record.size > limits.max_directory_bytes:
        raise ArchiveDirectoryTooLarge(size=record.size, limit=limits.max_directory_bytes)
    if not 46 * record.entries <= record.size or bool(record.size) != bool(record.entries):
        raise ArchiveInconsistent(reason=f"{record.entries} entries cannot fill a directory of {record.size} bytes")
    if not record.entries and edge:
        raise ArchiveInconsistent(reason=f"its directory is empty, but {edge} bytes precede it")
    if prefix + record.size > limits.max_directory_bytes:
        raise ArchiveUnsupported(reason=f"{prefix} bytes precede the archive")

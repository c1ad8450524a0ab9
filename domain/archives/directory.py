"""The central directory, entry by entry (APPNOTE 4.3.12). The loop is the hot path: a million entries are ordinary."""

import struct
from datetime import datetime

import msgspec

from domain.archives import names
from domain.archives.content_types import TypesBySuffix, content_type
from domain.archives.ends import CENTRAL, End
from domain.archives.shapes import Entry, Limits, shown
from domain.errors import (
    ArchiveBomb,
    ArchiveEncrypted,
    ArchiveInconsistent,
    ArchiveTruncated,
    ArchiveUnsafeEntry,
    ArchiveUnsupported,
)

# signature, host, flags, method, date and time, crc, 2 sizes, lengths of name, extra, comment, disk, attributes, offset
_CENTRAL = struct.Struct("<IxBxxHHIIIIHHHHxxII")
_SIGNATURE = int.from_bytes(CENTRAL, "little")
_SIGNED = int.from_bytes(b"PK\x05\x05", "little")
_U16, _U32 = 0xFFFF, 0xFFFFFFFF

METHODS = {0: "stored", 8: "deflated", 12: "bzip2", 14: "lzma"}
_KNOWN = {1: "shrunk", 6: "imploded", 9: "deflate64", 93: "zstd", 95: "xz", 97: "wavpack", 98: "ppmd"}
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # the members, strongly, the directory's fields masked (APPNOTE 4.4.4)
UTF8 = 0x0800
_AES = 99
_NODES = {0x1: "a pipe", 0x2: "a device", 0x6: "a device", 0xA: "a symbolic link", 0xC: "a socket"}
_FOLDER_BITS = 0x10  # of DOS attributes


class Directory(msgspec.Struct):
    """What the loop gathers. ``starts`` and ``ends`` bound each member from below: its local extra is not known yet."""

    entries: list[Entry] = []
    starts: list[int] = []
    ends: list[int] = []
    size: int = 0
    compressed_size: int = 0
    raw_paths: list[str] = []  # what readers that do not know the Unicode Path field see in place of a name
    warnings: dict[str, str] = {}


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
        self[stamp] = moment
        return moment


def read_directory(data: bytes, end: End, limits: Limits) -> Directory:
    """Every entry of ``data``, which is the directory and nothing else.

    Raises:
        ArchiveTruncated: an entry is damaged.
        ArchiveInconsistent, ArchiveUnsupported, ArchiveEncrypted, ArchiveUnsafeEntry, ArchiveBomb: by what it says.
    """
    found = Directory()
    try:
        used = _loop(data, end, limits, found)
    except struct.error:
        raise ArchiveTruncated(reason="the directory ends in the middle of an entry") from None
    if used > len(data):
        raise ArchiveTruncated(reason="the directory ends in the middle of an entry")
    if used < len(data):
        more = "more entries than it counts" if data.startswith(CENTRAL, used) else "something after its entries"
        raise ArchiveInconsistent(reason=f"the directory holds {more}")
    _name_the_rest(found)
    return found


def _loop(data: bytes, end: End, limits: Limits, found: Directory) -> int:
    unpack, methods, clock, types = _CENTRAL.unpack_from, METHODS, _Clock(), TypesBySuffix()
    add, start, stop = found.entries.append, found.starts.append, found.ends.append
    total = total_packed = 0
    floor, ratio, prefix, at = limits.ratio_floor_bytes, limits.max_ratio, end.prefix, 0
    for index in range(end.entries):
        (signature, host, flags, code, stamp, crc, packed, size, named, extra, remark, disk, attributes, offset) = (
            unpack(data, at)
        )
        if signature != _SIGNATURE:
            raise _misplaced(signature, index)
        here = at + 46
        at = here + named
        raw = data[here:at]
        name = ""
        field = data[at : at + extra] if extra else b""
        # most extra fields are times and owners, which nobody here needs: the two that matter are looked for by id
        if (field and (b"\x01\x00" in field or b"up" in field)) or disk or _U32 in (packed, size, offset):
            packed, size, offset, name = _extended(field, packed, size, offset, disk, flags, raw, found)
        if not name:
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                _must_be_unmarked(flags, raw)
        method = methods.get(code)
        if method is None or flags & ENCRYPTED:
            raise _unreadable(code, flags, raw)
        if attributes > 0x0FFFFFFF and attributes >> 28 not in (0x4, 0x8):
            _must_be_unset(attributes, raw)
        if packed != size and (not code or size > floor or packed > 8 * size + 4096 or not packed):
            _judge_sizes(code, size, packed, floor, ratio, raw)
        is_folder = raw[-1:] == b"/"
        if size if is_folder else attributes & _FOLDER_BITS or attributes >> 28 == 0x4:
            is_folder = _folder(size, raw, found)
        offset += prefix
        at += extra + remark
        start(offset)
        stop(offset + 30 + named + packed)
        total += size
        total_packed += packed
        kind = None if is_folder else types[name[name.rfind(".") :]]
        add(
            Entry(
                index, name, raw, size, packed, crc, method, clock[stamp], is_folder, False, offset, flags, host,
                attributes, kind,
            )
        )  # fmt: skip
    found.size, found.compressed_size = total, total_packed
    return at


def _misplaced(signature: int, index: int) -> Exception:
    if signature == _SIGNED:
        return ArchiveUnsupported(reason="its directory is signed")
    return ArchiveTruncated(reason=f"entry {index} of the directory is not there or damaged")


def _unreadable(code: int, flags: int, raw: bytes) -> Exception:
    if flags & ENCRYPTED or code == _AES:
        return ArchiveEncrypted(entry=shown(raw))
    return ArchiveUnsupported(
        reason=f"method {_KNOWN.get(code, code)} of {shown(raw)!r}", method=_KNOWN.get(code, code)
    )


def _judge_sizes(code: int, size: int, packed: int, floor: int, ratio: int, raw: bytes) -> None:
    """Sizes no compressor gives are a lie to whoever trusts them; ratios above the limit are a bomb."""
    if size > floor and size > ratio * packed:
        raise ArchiveBomb(reason=f"{shown(raw)!r} unpacks from {packed} to {size} bytes, more than {ratio} times")
    # a flush after every byte makes deflate grow sevenfold: no honest writer does worse
    if not code or not packed or packed > 8 * size + 4096:
        raise ArchiveInconsistent(reason=f"{packed} bytes of {shown(raw)!r} cannot unpack to {size}")


def _folder(size: int, raw: bytes, found: Directory) -> bool:
    """Marked as a folder by one of the name and the attributes: harmless while it is empty, ambiguous otherwise."""
    if size:
        raise ArchiveInconsistent(reason=f"{shown(raw)!r} is a folder with {size} bytes of content")
    if raw[-1:] != b"/":
        found.warnings["folder_mark"] = f"{shown(raw)!r} is a folder by its attributes only"
    return True


def _must_be_unset(attributes: int, raw: bytes) -> None:
    if attributes >> 16 == _U16 and raw[-1:] == b"/":
        return  # plexus-archiver wrote -1 for folders it made up: many jars of Maven Central have such
    raise ArchiveUnsafeEntry(reason=_NODES.get(attributes >> 28, "of an unknown type"), entry=shown(raw))


def _must_be_unmarked(flags: int, raw: bytes) -> None:
    if flags & UTF8:
        raise ArchiveInconsistent(reason=f"the name {shown(raw)!r} is marked as UTF-8 and is not")


def _extended(
    extra: bytes, packed: int, size: int, offset: int, disk: int, flags: int, raw: bytes, found: Directory
) -> tuple[int, int, int, str]:
    """Sizes and offset with their ZIP64 values (APPNOTE 4.5.3), and the name of a Unicode Path field or ""."""
    wanted = (size == _U32) + (packed == _U32) + (offset == _U32)
    fields = extra_fields(extra, raw)
    if None in fields:
        found.warnings["extra_field"] = f"the extra field of {shown(raw)!r} is damaged"
    wide = fields.get(0x0001, b"")
    if len(wide) < 8 * wanted + 4 * (disk == _U16):
        raise ArchiveInconsistent(reason=f"the ZIP64 sizes of {shown(raw)!r} are missing")
    if wanted:
        values = iter(struct.unpack_from(f"<{wanted}Q", wide))
        size = next(values) if size == _U32 else size
        packed = next(values) if packed == _U32 else packed
        offset = next(values) if offset == _U32 else offset
    elif len(wide) >= 16 and struct.unpack_from("<QQ", wide) != (size, packed):
        raise ArchiveInconsistent(reason=f"{shown(raw)!r} has other sizes in its ZIP64 field")
    if disk == _U16:
        disk = int.from_bytes(wide[8 * wanted : 8 * wanted + 4], "little")
    if disk:
        raise ArchiveUnsupported(reason="it spans several volumes")
    return packed, size, offset, _unicode_name(fields.get(0x7075), flags, raw, found)


def _unicode_name(field: bytes | None, flags: int, raw: bytes, found: Directory) -> str:
    name = names.unicode_path(field, raw) if field else None
    if not name:
        return ""
    if flags & UTF8 and name.encode() != raw:
        raise ArchiveInconsistent(reason=f"the entry {shown(raw)!r} has another Unicode name, {shown(name)!r}")
    found.raw_paths.append(raw.decode("cp437"))
    return name


def extra_fields(extra: bytes, raw: bytes) -> dict[int | None, bytes]:
    """Fields by id (APPNOTE 4.5.1); the key None stands for a damaged rest. Up to 3 bytes of padding are ordinary.

    Raises:
        ArchiveInconsistent: one of the fields read here comes twice, and readers differ in which one counts.
    """
    fields: dict[int | None, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        code, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra):
            fields[None] = extra[at - 4 :]
            break
        if code in fields and code in (0x0001, 0x7075):
            raise ArchiveInconsistent(reason=f"an extra field of {shown(raw)!r} comes twice")
        fields[code] = extra[at : at + length]
        at += length
    return fields


def _name_the_rest(found: Directory) -> None:
    """Names the loop could not read wait for each other: all of them decide on the code page."""
    entries = found.entries
    left = [entry for entry in entries if not entry.name and entry.raw_name]
    if not left:
        return
    page = names.code_page((entry.raw_name for entry in left), left[0].host)
    for entry in left:
        name = names.decode(entry.raw_name, page)
        kind = None if entry.is_folder else content_type(name)
        entries[entry.index] = msgspec.structs.replace(entry, name=name, content_type=kind)

"""The central directory, chunk by chunk (APPNOTE 4.3.12): ordinary ones as a whole (``domain.archives.columns``), and
entry by entry where anything needs a closer look.

Nothing is kept of an entry but what the whole archive is judged by, so memory does not grow with their number: names
go in chunks to ``domain.archives.paths``, and who wants entries reads them anew from the bytes (``Entries``).
"""

import struct
from collections.abc import Iterator

import msgspec

from domain.archives import names
from domain.archives.columns import BETWEEN, CENTRAL_FIELDS, ENCRYPTED, SIGNATURE, ordinary
from domain.archives.ends import CENTRAL, End
from domain.archives.entries import FOLDER_BITS, METHODS, Entries, needs_fields
from domain.archives.fields import UTF8, Notes, extended, tell_reading
from domain.archives.shapes import Limits, shown
from domain.errors.archives import (
    ArchiveEncrypted,
    ArchiveInconsistent,
    ArchiveMethod,
    ArchiveRatio,
    ArchiveTruncated,
    ArchiveUnsafeEntry,
    ArchiveUnsupported,
)

_LENGTHS = struct.Struct("<5xB22xHHH")  # host; of name, extra, comment
_SIGNED = int.from_bytes(b"PK\x05\x05", "little")
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_CHUNK_BYTES = 64 * 1024  # of the directory, looked at together: what is made of them stays in the processor's cache

_KNOWN = {1: "shrunk", 6: "imploded", 9: "deflate64", 93: "zstd", 95: "xz", 97: "wavpack", 98: "ppmd"}
_AES = 99
_NODES = {0x1: "a pipe", 0x2: "a device", 0x6: "a device", 0xA: "a symbolic link", 0xC: "a socket"}
SLACK = 0xFFFF + 24  # what a local header's extra field and a data descriptor can add to a member


class Chunk(msgspec.Struct):
    """Names that follow each other: from byte ``at`` of the directory, the first one's entry numbered ``index``."""

    at: int
    index: int
    count: int = 0
    names: str = ""  # joined by ``BETWEEN``
    folders: list[int] = []  # which of them, counted from the first
    raw_paths: list[str] = []  # what readers that do not know the Unicode Path field see in place of a name
    plain: list[bytes] = []  # all names as they are written, and as they are meant, where there are ``raw_paths``
    true: list[str] = []
    longest: int = 0  # bytes
    empty: bool = False  # there is a name without a letter


class Directory(msgspec.Struct):
    """What the loop gathers. A member takes at least its header, name and data: its local extra is not known yet."""

    entries: Entries
    folders: int = 0
    size: int = 0
    compressed_size: int = 0
    first: int = 0  # where the first member begins
    reached: int = 0  # where the last member ends at the earliest, if ``ordered``
    ordered: bool = True  # each member begins where the one before has ended, or later
    gaps: bool = False  # more between two members than their headers explain, if ``ordered``
    warnings: dict[str, str] = {}


def read_directory(data: bytes, found: Directory, end: End, limits: Limits) -> Iterator[Chunk]:
    """Judge every entry of ``data``, which is the directory and nothing else, and give the names chunk by chunk.

    ``found`` is filled on the way and complete after the last chunk.

    Raises:
        ArchiveTruncated: an entry is damaged.
        ArchiveInconsistent, ArchiveUnsupported, ArchiveEncrypted, ArchiveUnsafeEntry, ArchiveBomb: by what it says.
    """
    at = index = 0
    while index < end.entries:
        chunk = Chunk(at=at, index=index)
        try:
            at = _pass(data, at, chunk, found, end, limits) or _loop(data, at, chunk, found, end, limits)
        except struct.error:
            raise ArchiveTruncated(reason="the directory ends in the middle of an entry") from None
        index += chunk.count
        if index == end.entries or at > len(data):
            _check_end(data, at)
        yield chunk


def _check_end(data: bytes, used: int) -> None:
    if used > len(data):
        raise ArchiveTruncated(reason="the directory ends in the middle of an entry")
    if used < len(data):
        more = "more entries than it counts" if data.startswith(CENTRAL, used) else "something after its entries"
        raise ArchiveInconsistent(reason=f"the directory holds {more}")


def _pass(data: bytes, at: int, chunk: Chunk, found: Directory, end: End, limits: Limits) -> int:
    """``_loop`` for a chunk of ordinary entries; 0 where one of them is not."""
    most = end.entries - chunk.index
    columns = ordinary(data, at, at + _CHUNK_BYTES, most, limits)
    if columns is None:
        return 0
    first, nearest, farthest = columns.first + end.prefix, columns.nearest, columns.farthest
    if not chunk.index:
        found.first = first
    else:
        nearest, farthest = min(nearest, first - found.reached), max(farthest, first - found.reached)
    if nearest < 0:
        found.ordered = False
    if nearest < 0 or farthest > SLACK:
        found.gaps = True
    found.reached = columns.reached + end.prefix
    found.size += columns.size
    found.compressed_size += columns.compressed_size
    found.folders += len(columns.folders)
    chunk.count, chunk.names, chunk.folders = columns.number, columns.names, columns.folders
    chunk.longest = columns.longest
    return columns.ends


def _loop(data: bytes, at: int, chunk: Chunk, found: Directory, end: End, limits: Limits) -> int:
    notes = Notes(warnings=found.warnings, raw_paths=chunk.raw_paths)
    texts: list[str] = []
    raws: list[bytes] = []
    chunk_ends, floor, ratio, reached = at + _CHUNK_BYTES, limits.ratio_floor_bytes, limits.max_ratio, found.reached
    for index in range(chunk.index, end.entries):
        (signature, flags, code, packed, size, named, extra, remark, disk, attributes, offset) = (
            CENTRAL_FIELDS.unpack_from(data, at)
        )
        if signature != SIGNATURE:
            raise _misplaced(signature, index)
        here = at + 46
        at = here + named
        raw = data[here:at]
        name = ""
        field = data[at : at + extra]
        if needs_fields(field, disk, packed, size, offset):
            packed, size, offset, name = extended(field, packed, size, offset, disk, flags, raw, notes)
        if not name:
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                name = _other_name(data, here - 46, flags, raw, found)
        if len(name) != named and not flags & UTF8:  # of what is not ASCII: a byte is not a letter
            _tell_unmarked(name, raw, found)
        if code not in METHODS or flags & ENCRYPTED:
            raise _unreadable(code, flags, raw)
        if attributes > 0x0FFFFFFF and attributes >> 28 not in (0x4, 0x8):
            _must_be_unset(attributes, raw)
        if packed != size and (not code or size > floor or packed > 8 * size + 4096 or not packed):
            _judge_sizes(code, size, packed, floor, ratio, raw)
        is_folder = raw[-1:] == b"/"
        if size if is_folder else attributes & FOLDER_BITS or attributes >> 28 == 0x4:
            is_folder = _folder(size, raw, found)
        if is_folder:
            chunk.folders.append(len(texts))
        chunk.longest = max(chunk.longest, named)
        offset += end.prefix
        if not index:
            found.first = reached = offset
        if not 0 <= offset - reached <= SLACK:
            if offset < reached:
                found.ordered = False
            found.gaps = True
        reached = offset + 30 + named + packed
        at += extra + remark
        found.size += size
        found.compressed_size += packed
        texts.append(name)
        raws.append(raw)
        if at >= chunk_ends:
            break
    found.folders += len(chunk.folders)
    found.reached = reached
    chunk.count, chunk.names, chunk.empty = len(texts), BETWEEN.join(texts), not all(texts)
    if chunk.raw_paths:
        chunk.plain, chunk.true = raws, texts
    return at


def _other_name(data: bytes, at: int, flags: int, raw: bytes, found: Directory) -> str:
    """A name that is not UTF-8. The first one settles the code page: those that follow have a say in it."""
    if flags & UTF8:
        raise ArchiveInconsistent(reason=f"the name {shown(raw)!r} is marked as UTF-8 and is not", entry=shown(raw))
    if not found.entries.page_known:
        found.entries.page = names.code_page(_names_from(data, at), host=data[at + 5])
        found.entries.page_known = True
    name = names.decode(raw, found.entries.page)
    tell_reading(found.warnings, name, found.entries.page)
    return name


def _tell_unmarked(name: str, raw: bytes, found: Directory) -> None:
    if "name_encoding" not in found.warnings and name.encode() == raw:
        tell_reading(found.warnings, name, "UTF-8")


def _names_from(data: bytes, at: int) -> Iterator[bytes]:
    """The names from byte ``at`` of the directory on that are not UTF-8."""
    while at + 46 <= len(data):
        _, named, extra, remark = _LENGTHS.unpack_from(data, at)
        raw = data[at + 46 : at + 46 + named]
        at += 46 + named + extra + remark
        try:
            raw.decode()
        except UnicodeDecodeError:
            yield raw


def _misplaced(signature: int, index: int) -> Exception:
    if signature == _SIGNED:
        return ArchiveUnsupported(reason="its directory is signed")
    return ArchiveTruncated(reason=f"entry {index} of the directory is not there or damaged")


def _unreadable(code: int, flags: int, raw: bytes) -> Exception:
    if flags & ENCRYPTED or code == _AES:
        return ArchiveEncrypted(entry=shown(raw))
    return ArchiveMethod(entry=shown(raw), method=_KNOWN.get(code, code))


def _judge_sizes(code: int, size: int, packed: int, floor: int, ratio: int, raw: bytes) -> None:
    """Sizes no compressor gives are a lie to whoever trusts them; ratios above the limit are a bomb."""
    if size > floor and size > ratio * packed:
        raise ArchiveRatio(
            reason=f"{shown(raw)!r} unpacks from {packed} to {size} bytes, more than {ratio} times", entry=shown(raw)
        )
    # a flush after every byte makes deflate grow sevenfold: no honest writer does worse
    if not code or not packed or packed > 8 * size + 4096:
        raise ArchiveInconsistent(reason=f"{packed} bytes of {shown(raw)!r} cannot unpack to {size}", entry=shown(raw))


def _folder(size: int, raw: bytes, found: Directory) -> bool:
    """Marked as a folder by one of the name and the attributes: harmless while it is empty, ambiguous otherwise."""
    if size:
        raise ArchiveInconsistent(reason=f"{shown(raw)!r} is a folder with {size} bytes of content", entry=shown(raw))
    if raw[-1:] != b"/":
        found.warnings["folder_mark"] = f"{shown(raw)!r} is a folder by its attributes only"
    return True


def _must_be_unset(attributes: int, raw: bytes) -> None:
    if attributes >> 16 == _U16 and raw[-1:] == b"/":
        return  # plexus-archiver wrote -1 for folders it made up: many jars of Maven Central have such
    raise ArchiveUnsafeEntry(reason=_NODES.get(attributes >> 28, "of an unknown type"), entry=shown(raw))

"""Entries of the directory taken together: a chunk in which nothing needs a closer look is passed by a few searches.

Reading entry by entry and asking of each what can be wrong with it takes twice as long. So the fields of a chunk are
laid side by side, and what is asked of one is asked of its column. Where an answer is not the ordinary one nothing is
judged here: ``domain.archives.directory`` goes through the chunk entry by entry and finds the name of what is wrong.
"""

import struct
from collections.abc import Sequence
from operator import add, sub
from typing import NamedTuple

from domain.archives.entries import FOLDER_BITS, HARMLESS, METHODS
from domain.archives.fields import UTF8
from domain.archives.shapes import Limits

# signature, flags, method, 2 sizes, lengths of name, extra, comment, disk, attributes, offset
CENTRAL_FIELDS = struct.Struct("<I4xHH8xIIHHHHxxII")
SIGNATURE = int.from_bytes(b"PK\x01\x02", "little")
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # the members, strongly, the directory's fields masked (APPNOTE 4.4.4)
BETWEEN = "/\n/"  # closes one name and opens the next, so each part of a path stands between slashes
_U32 = 0xFFFFFFFF
_KINDS = (0x4, 0x8)  # a folder and a file, the first four bits of a Unix mode
_NAME, _EXTRA, _REMARK = 5, 6, 7  # where the lengths stand in a row


class Columns(NamedTuple):
    """Ordinary entries that follow each other."""

    number: int  # of them
    ends: int  # byte of the directory after the last of them
    names: str  # joined by ``BETWEEN``
    folders: list[int]  # which of them, counted from the first
    longest: int  # name, in bytes
    size: int
    compressed_size: int
    first: int  # where the first member begins, a prefix not counted
    reached: int  # where the last member ends at the earliest
    nearest: int  # the least number of bytes between the earliest end of a member and the next one's beginning, and
    farthest: int  # the largest; 0 where there is one member


def ordinary(data: bytes, at: int, stop: int, most: int, limits: Limits) -> Columns | None:
    """The entries from byte ``at`` on that begin before ``stop``, at most ``most``; None where one is not ordinary."""
    rows: list[tuple[int, ...]] = []
    raws: list[bytes] = []
    extras: set[bytes] = set()
    unpack = CENTRAL_FIELDS.unpack_from
    try:
        while at < stop and len(rows) < most:
            row = unpack(data, at)
            here = at + 46
            at = here + row[_NAME]
            raws.append(data[here:at])
            if row[_EXTRA]:
                extras.add(data[at : at + row[_EXTRA]])
            at += row[_EXTRA] + row[_REMARK]
            rows.append(row)
    except struct.error:
        return None
    signatures, flags, codes, packed, sizes, named, _, _, disks, attributes, offsets = zip(*rows, strict=True)
    names = _joined(raws, flags)
    if (
        names is None
        or at > len(data)
        or set(signatures) != {SIGNATURE}
        or any(disks)
        or any(flag & ENCRYPTED for flag in set(flags))
        or not METHODS.keys() >= set(codes)
        or any(map(_may_tell, extras))
        or not min(named)
        or max(sizes) == _U32
        or max(packed) == _U32
        or max(offsets) == _U32
        or not _plausible(codes, packed, sizes, limits)
    ):
        return None
    folders = [place for place, raw in enumerate(raws) if raw[-1:] == b"/"] if "//" in f"{names}/" else []
    if not _marked_alike(folders, sizes, attributes):
        return None
    ends = [end + 30 for end in map(add, map(add, offsets, named), packed)]
    between = list(map(sub, offsets[1:], ends)) or [0]
    return Columns(
        number=len(rows),
        ends=at,
        names=names,
        folders=folders,
        longest=max(named),
        size=sum(sizes),
        compressed_size=sum(packed),
        first=offsets[0],
        reached=ends[-1],
        nearest=min(between),
        farthest=max(between),
    )


def _joined(raws: list[bytes], flags: Sequence[int]) -> str | None:
    """None where readers may differ in what a name is: what is not ASCII must be marked as UTF-8, and be so."""
    joined = BETWEEN.encode().join(raws)
    if not (
        joined.isascii()
        or all(flag & UTF8 for flag in set(flags))
        or all(flag & UTF8 or raw.isascii() for flag, raw in zip(flags, raws, strict=True))
    ):
        return None
    try:
        return joined.decode()
    except UnicodeDecodeError:
        return None


def _may_tell(extra: bytes) -> bool:
    """The test of ``entries.needs_fields``."""
    return (b"\x01\x00" in extra or b"up" in extra) and not HARMLESS(extra)


def _plausible(codes: Sequence[int], packed: Sequence[int], sizes: Sequence[int], limits: Limits) -> bool:
    """Whether a compressor may give all of these sizes, and none is more than the ratio allows."""
    if packed == sizes:
        return True
    floor, ratio = limits.ratio_floor_bytes, limits.max_ratio
    return all(
        put == size or (code and put and put <= 8 * size + 4096 and (size <= floor or size <= ratio * put))
        for code, put, size in zip(codes, packed, sizes, strict=True)
    )


def _marked_alike(folders: list[int], sizes: Sequence[int], attributes: Sequence[int]) -> bool:
    """Whether names and attributes agree in what is a folder, folders are empty, and nothing is a node of a device."""
    others = set(attributes)
    if folders:
        if any(sizes[place] for place in folders):
            return False
        if any(one > 0x0FFFFFFF and one >> 28 not in _KINDS for one in others):
            return False
        marked = set(folders)
        others = {one for place, one in enumerate(attributes) if place not in marked}
    return not any(one & FOLDER_BITS or (one > 0x0FFFFFFF and one >> 28 != 0x8) for one in others)

"""Extra fields of an entry (APPNOTE 4.5): only ZIP64 sizes and the Unicode Path matter here."""

import struct
from typing import NamedTuple

import msgspec

from domain.archives import names
from domain.archives.shapes import shown
from domain.errors.archives import ArchiveInconsistent, ArchiveVolumes

UTF8 = 0x0800
_U16, _U32 = 0xFFFF, 0xFFFFFFFF


class Notes(msgspec.Struct):
    """What is remarked on the way: warnings by their word, and what readers ignorant of Unicode Paths see as names."""

    warnings: dict[str, str] = {}
    raw_paths: list[str] = []


class Extended(NamedTuple):
    packed: int
    size: int
    offset: int
    name: str  # of a Unicode Path field, or ""


def extended(
    extra: bytes, packed: int, size: int, offset: int, disk: int, flags: int, raw: bytes, notes: Notes
) -> Extended:
    """Sizes and offset with their ZIP64 values (APPNOTE 4.5.3), and the name of a Unicode Path field or ""."""
    wanted = (size == _U32) + (packed == _U32) + (offset == _U32)
    fields = extra_fields(extra, raw)
    if None in fields:
        notes.warnings["extra_field"] = f"the extra field of {shown(raw)!r} is damaged"
    wide = fields.get(0x0001, b"")
    if len(wide) < 8 * wanted + 4 * (disk == _U16):
        raise ArchiveInconsistent(reason=f"the ZIP64 sizes of {shown(raw)!r} are missing", entry=shown(raw))
    if wanted:
        values = iter(struct.unpack_from(f"<{wanted}Q", wide))
        size = next(values) if size == _U32 else size
        packed = next(values) if packed == _U32 else packed
        offset = next(values) if offset == _U32 else offset
    elif len(wide) >= 16 and struct.unpack_from("<QQ", wide) != (size, packed):
        raise ArchiveInconsistent(reason=f"{shown(raw)!r} has other sizes in its ZIP64 field", entry=shown(raw))
    if disk == _U16:
        disk = int.from_bytes(wide[8 * wanted : 8 * wanted + 4], "little")
    if disk:
        raise ArchiveVolumes(entry=shown(raw))
    return Extended(packed, size, offset, _unicode_name(fields.get(0x7075), flags, raw, notes))


def _unicode_name(field: bytes | None, flags: int, raw: bytes, notes: Notes) -> str:
    name = names.unicode_path(field, raw) if field else None
    if not name:
        return ""
    if flags & UTF8 and name.encode() != raw:
        raise ArchiveInconsistent(
            reason=f"the entry {shown(raw)!r} has another Unicode name, {shown(name)!r}", entry=shown(raw)
        )
    notes.raw_paths.append(raw.decode("cp437"))
    if name.encode() != raw:
        tell_reading(notes.warnings, name, "its Unicode Path says")
    return name


def tell_reading(warnings: dict[str, str], name: str, way: str) -> None:
    """Of a name that is neither ASCII nor marked as UTF-8, so that readers differ; a million of them are told once."""
    if "name_encoding" not in warnings:
        warnings["name_encoding"] = f"{shown(name)!r} is read as {way}, and not so by every program"


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
            raise ArchiveInconsistent(reason=f"an extra field of {shown(raw)!r} comes twice", entry=shown(raw))
        fields[code] = extra[at : at + length]
        at += length
    return fields

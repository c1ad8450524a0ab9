"""Names as paths: which are not safe to write anywhere, and which would be one file on some system.

Whole archives of ordinary names are passed by a few searches over all names joined; only an archive with anything
unusual is looked at name by name.
"""

import re
import unicodedata
from collections.abc import Iterable

from domain.archives.shapes import Entry, Limits, shown
from domain.errors import ArchiveInconsistent, ArchiveUnsafeName

_BETWEEN = "/\n/"  # closes one name and opens the next, so each part of a path stands between slashes
_UNUSUAL = ("//", "./", " /", "\\", ":")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DRIVE = re.compile(r"[A-Za-z]:")
_RESERVED = re.compile(r"/((?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?: *\.[^/]*)?) */")
_PART_LETTERS = 255  # of one file or folder name, on every common file system

Warnings = dict[str, str]


def check_paths(entries: list[Entry], raw_paths: list[str], limits: Limits) -> Warnings:
    """Refuse unsafe names and names that meet; tell the merely awkward.

    ``raw_paths`` are names some readers see in place of the decoded ones; they must be safe as well.

    Raises:
        ArchiveUnsafeName: see the table in ``domain.archives``.
        ArchiveInconsistent: two entries are one file, or a file is a folder.
    """
    names = [entry.name for entry in entries]
    warnings: Warnings = {}
    longest = max(map(len, [entry.raw_name for entry in entries]), default=0)
    if longest > limits.max_name_bytes or max(map(len, names), default=0) > limits.max_name_bytes:
        _refuse_long(entries, limits)
    for raw in raw_paths:
        _check_path(raw, limits, {})
    keys = None
    if longest <= min(_PART_LETTERS, 2 * limits.max_depth) and all(names) and all(map(str.isprintable, names)):
        keys = _ordinary(names)
    if keys is None:
        for name in names:
            _check_path(name, limits, warnings)
        keys = [_key(name) for name in names]
    joined = f"/{_BETWEEN.join(keys)}/"
    if reserved := _RESERVED.search(joined):
        warnings["reserved_name"] = f"Windows cannot write {shown(reserved[1])!r}"
    _check_meetings(entries, keys, warnings)
    if raw_paths and len({entry.raw_name for entry in entries}) < len(set(names)):
        raise ArchiveInconsistent(reason="entries with different Unicode names share one plain name")
    return warnings


def _ordinary(names: list[str]) -> list[str] | None:
    """Keys as of ``_key`` for names in which nothing needs a closer look, else None."""
    joined = f"/{_BETWEEN.join(names)}/\n".replace("//\n", "/\n")
    if any(mark in joined for mark in _UNUSUAL):
        return None
    return _fold(joined)[1:-2].split(_BETWEEN)


def _fold(text: str) -> str:
    """Caseless and composed, as Windows and macOS compare names (Unicode 3.13, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _key(name: str) -> str:
    """What two names have in common when some system takes them for one path."""
    parts = (part.rstrip(" .") for part in _fold(name).replace("\\", "/").split("/"))
    return "/".join(part for part in parts if part)


def _check_path(name: str, limits: Limits, warnings: Warnings) -> None:
    if not name:
        raise ArchiveUnsafeName(reason="it is empty", entry="")
    if _CONTROL.search(name):
        raise ArchiveUnsafeName(reason="control characters", entry=shown(name))
    if name[0] in "/\\":
        raise ArchiveUnsafeName(reason="an absolute path", entry=shown(name))
    if _DRIVE.match(name):
        raise ArchiveUnsafeName(reason="a drive letter", entry=shown(name))
    parts = name.replace("\\", "/").split("/")
    if len(parts) > limits.max_depth:
        raise ArchiveUnsafeName(reason=f"more than {limits.max_depth} folders deep", entry=shown(name))
    untidy = False
    for part in parts if parts[-1] else parts[:-1]:
        if part not in ("", ".") and not part.strip(" ."):  # Windows drops closing dots and spaces: ".. " is ".." there
            raise ArchiveUnsafeName(reason=f"the part {part!r}", entry=shown(name))
        if len(part) > _PART_LETTERS:
            raise ArchiveUnsafeName(reason=f"a part longer than {_PART_LETTERS} characters", entry=shown(name))
        untidy = untidy or not part or part[-1] in " ."
    if parts[-1] == ".":
        raise ArchiveUnsafeName(reason="it names no file", entry=shown(name))
    if untidy:
        warnings.setdefault("untidy_path", f"{shown(name)!r} is not written the same way on every system")
    if "\\" in name:
        warnings.setdefault("backslash", f"{shown(name)!r} is a path on some systems and a file name on others")
    if ":" in name:
        warnings.setdefault("colon", f"Windows cannot write {shown(name)!r}")
    if _DIRECTION.search(name):
        warnings.setdefault("direction", f"{shown(name)!r} changes the direction of writing and may look like another")


def _refuse_long(entries: Iterable[Entry], limits: Limits) -> None:
    for entry in entries:
        if max(len(entry.raw_name), len(entry.name)) > limits.max_name_bytes:
            raise ArchiveUnsafeName(reason=f"longer than {limits.max_name_bytes} bytes", entry=shown(entry.name))


def _check_meetings(entries: list[Entry], keys: list[str], warnings: Warnings) -> None:
    distinct = set(keys)
    if len(distinct) < len(keys):
        seen: dict[str, Entry] = {}
        for key, entry in zip(keys, entries, strict=True):
            first = seen.setdefault(key, entry)
            if first is entry:
                continue
            if not (first.is_folder and entry.is_folder):
                raise ArchiveInconsistent(reason=f"{shown(first.name)!r} and {shown(entry.name)!r} are the same path")
            warnings.setdefault("repeated_folder", f"the folder {shown(entry.name)!r} comes more than once")
    parents = {key.rpartition("/")[0] for key in keys}
    used = {above for parent in parents for above in _upwards(parent, parents) if above in distinct}
    for key, entry in zip(keys, entries, strict=True) if used else ():
        if key in used and not entry.is_folder:
            raise ArchiveInconsistent(reason=f"{shown(entry.name)!r} is a file and a folder")


def _upwards(path: str, known: set[str]) -> Iterable[str]:
    """The path and the folders above it, up to one that is followed for itself. Nothing is kept: paths can be deep."""
    while path:
        yield path
        path = path.rpartition("/")[0]
        if path in known:
            return

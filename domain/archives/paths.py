"""Names as paths: which are not safe to write anywhere, and which would be one file on some system.

Whole chunks of ordinary names are passed by a few searches over all names joined; only a chunk with anything unusual is
looked at name by name. Of each path its hash is kept; where two are equal the names themselves are compared.
"""

import re
import unicodedata
from array import array
from collections import Counter

from domain.archives.columns import BETWEEN
from domain.archives.directory import Chunk
from domain.archives.entries import Entries
from domain.archives.marks import MARKS_MOST, too_many_marks
from domain.archives.shapes import Entry, Limits, shown
from domain.errors.archives import ArchiveDuplicate, ArchiveInconsistent, ArchiveUnsafeName

_UNUSUAL = ("//", "./", " /", "\\", ":")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NONCHARACTER = re.compile(r"[\ufdd0-\ufdef\ufffe\uffff]")  # Unicode 23.7: in no text, and programs drop or refuse them
_DRIVE = re.compile(r"[A-Za-z]:")
_RESERVED = re.compile(r"/((?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?: *\.[^/]*)?) */")
# Windows drops closing dots and spaces, so ".. " is ".." there; a lone dot is only untidy
_ONLY_DOTS = re.compile(r"(?:^|/)(?!\.(?:/|$))([ .]+)(?=/|$)")
_PART_LETTERS = 255  # of one file or folder name, on every common file system
_SET_MOST = 200_000  # of hashes in one set: of a million they are looked at in several rounds
_FOLDERS_MOST = 50_000  # whose hashes are kept while reading; beyond that the directory is read once more

Warnings = dict[str, str]


class Paths:
    """The names of one archive, taken chunk by chunk and judged as a whole at the end.

    Raises:
        ArchiveUnsafeName: see the table in ``domain.archives``.
        ArchiveInconsistent: two entries are one path, a file is a folder, or what a name is depends on the reader.
    """

    def __init__(self, entries: Entries, limits: Limits, warnings: Warnings) -> None:
        self._entries, self._limits, self._warnings = entries, limits, warnings
        self._files = array("q")
        self._folders = array("q")
        self._above: set[int] | None = set()  # folders that names lie in; None when there are too many
        self._file_lengths: set[int] = set()
        self._plain, self._true = array("q"), array("q")  # of chunks in which an entry has two names
        self._single: list[tuple[int, int, int]] = []  # where the others are

    def add(self, chunk: Chunk) -> None:
        """Refuse unsafe names; tell the merely awkward."""
        limits, keys, joined = self._limits, None, ""
        if not chunk.names.isascii() and (marks := too_many_marks(chunk.names)):
            raise ArchiveUnsafeName(reason=f"more than {MARKS_MOST} combining marks in a row", entry=shown(marks))
        if not chunk.empty and chunk.longest <= limits.max_name_bytes and _passable(chunk.names, chunk.longest, limits):
            joined, keys = _ordinary(chunk.names, chunk.count)
        if chunk.raw_paths:
            self._check_plain(chunk.raw_paths)
            self._plain.extend(map(hash, chunk.plain))
            self._true.extend(map(hash, chunk.true))
        else:
            self._single.append((chunk.at, chunk.index, chunk.count))
        if keys is None:
            keys = []
            for entry in self._entries.between(chunk.at, chunk.index, chunk.count):
                if max(len(entry.raw_name), len(entry.name)) > limits.max_name_bytes:
                    raise ArchiveUnsafeName(
                        reason=f"longer than {limits.max_name_bytes} bytes", entry=shown(entry.name)
                    )
                _check_path(entry.name, limits, self._warnings)
                keys.append(_key(entry.name))
            joined = f"/{BETWEEN.join(keys)}/"
        if reserved := _RESERVED.search(joined):
            self._warnings["reserved_name"] = f"Windows cannot write {shown(reserved[1])!r}"
        self._keep(keys, chunk.folders)

    def _check_plain(self, paths: list[str]) -> None:
        """What is awkward in them is in the true names too, or nobody's concern."""
        joined = BETWEEN.join(paths)
        longest = max(map(len, paths))
        if _passable(joined, longest, self._limits) and _tidy(joined, len(paths)):
            return
        told: Warnings = {}
        for path in paths:
            _check_path(path, self._limits, told)

    def _keep(self, keys: list[str], folders: list[int]) -> None:
        if self._above is not None:
            for parent in {key.rpartition("/")[0] for key in keys}:
                above = parent
                while above and (known := hash(above)) not in self._above:
                    self._above.add(known)
                    above = above.rpartition("/")[0]
            if len(self._above) > _FOLDERS_MOST:
                self._above = None
        if folders:
            marked = set(folders)
            self._folders.extend(hash(keys[place]) for place in folders)
            keys = [key for place, key in enumerate(keys) if place not in marked]
        self._files.extend(map(hash, keys))
        self._file_lengths.update(map(len, keys))

    def close(self) -> None:
        """Judge the names together."""
        doubtful, repeated = self._met()
        if doubtful:
            self._compare(doubtful)
        if repeated:
            self._tell_repeated(repeated)
        if self._above is None:
            self._look_above(set(self._files))
        if self._plain:
            for place in self._single:
                for entry in self._entries.between(*place):
                    self._plain.append(hash(entry.raw_name))
                    self._true.append(hash(entry.name))
            if len(set(self._plain)) < len(set(self._true)):
                raise ArchiveInconsistent(reason="entries with different Unicode names share one plain name")

    def _met(self) -> tuple[set[int], set[int]]:
        """Hashes of files that something else shares, and of folders that come twice."""
        rounds = 1 + (len(self._files) + len(self._folders)) // _SET_MOST
        doubtful: set[int] = set()
        repeated: set[int] = set()
        for turn in range(rounds):
            files = [one for one in self._files if one % rounds == turn] if rounds > 1 else self._files
            folders = [one for one in self._folders if one % rounds == turn] if rounds > 1 else self._folders
            known = set(files)
            if len(known) < len(files):
                doubtful |= {one for one, times in Counter(files).items() if times > 1}
            doubtful |= known.intersection(folders)
            doubtful |= known & self._above if self._above else set()
            if folders and len(set(folders)) < len(folders):
                repeated |= {one for one, times in Counter(folders).items() if times > 1}
        return doubtful, repeated

    def _compare(self, doubtful: set[int]) -> None:
        held: dict[str, Entry] = {}
        for entry in self._entries:
            key = _key(entry.name)
            if hash(key) in doubtful:
                first = held.setdefault(key, entry)
                if first is not entry and not (first.is_folder and entry.is_folder):
                    raise ArchiveDuplicate(first=shown(first.name), entry=shown(entry.name))
        self._look_above({hash(key) for key, entry in held.items() if not entry.is_folder})

    def _look_above(self, files: set[int]) -> None:
        """Raises ArchiveDuplicate for a name that lies in one of ``files`` as if that were a folder."""
        lengths = self._file_lengths
        for entry in self._entries:
            key = _key(entry.name)
            at = key.rfind("/")
            while at > 0:
                if at in lengths and hash(key[:at]) in files:
                    for other in self._entries:
                        if not other.is_folder and _key(other.name) == key[:at]:
                            raise ArchiveDuplicate(first=shown(other.name), entry=shown(entry.name))
                at = key.rfind("/", 0, at)

    def _tell_repeated(self, repeated: set[int]) -> None:
        seen: set[str] = set()
        for entry in self._entries:
            if entry.is_folder and hash(key := _key(entry.name)) in repeated:
                if key in seen:
                    self._warnings["repeated_folder"] = f"the folder {shown(entry.name)!r} comes more than once"
                    return
                seen.add(key)


def _passable(names: str, longest: int, limits: Limits) -> bool:
    """Whether none of the names, which have at most ``longest`` bytes, is too deep or has a part that is too long."""
    if longest > _PART_LETTERS and not _parts_fit(names):
        return False
    return longest <= 2 * limits.max_depth or _depth(names) <= limits.max_depth


def _parts_fit(path: str) -> bool:
    return max(map(len, path.split("/"))) <= _PART_LETTERS  # a pattern for this takes thirty times as long


def _depth(names: str) -> int:
    return 1 + max(name.count("/") for name in names.split(BETWEEN))


def _tidy(names: str, count: int) -> str:
    """The names joined, if nothing in them needs a closer look; else ""."""
    if names.count("\n") != count - 1 or not names.replace("\n", "").isprintable():
        return ""
    joined = f"/{names}/\n".replace("//\n", "/\n")
    return "" if any(mark in joined for mark in _UNUSUAL) else joined


def _ordinary(names: str, count: int) -> tuple[str, list[str] | None]:
    """The names joined, and keys as of ``_key``, for names in which nothing needs a closer look; else no keys."""
    if not (joined := _tidy(names, count)):
        return "", None
    joined = _fold(joined)
    return joined, joined[1:-2].split(BETWEEN)


def _fold(text: str) -> str:
    """Caseless and composed, as Windows and macOS compare names (Unicode 3.13, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _untidy(path: str) -> bool:
    return "//" in path or "./" in path or " /" in path or path[-1:] in (" ", ".")


def _key(name: str) -> str:
    """What two names have in common when some system takes them for one path."""
    folded = _fold(name).replace("\\", "/")
    if folded[:1] != "/" and not _untidy(folded):
        return folded.removesuffix("/")
    if " " in folded or "./" in folded or folded[-1:] == ".":
        folded = "/".join([part.rstrip(" .") for part in folded.split("/")])
    return "/".join(filter(None, folded.split("/")))


def _check_path(name: str, limits: Limits, warnings: Warnings) -> None:
    if not name:
        raise ArchiveUnsafeName(reason="it is empty", entry="")
    # searches are slow on long names, so each is asked for only where it can find something
    if not name.isprintable() and _CONTROL.search(name):
        raise ArchiveUnsafeName(reason="control characters", entry=shown(name))
    if name[0] in "/\\":
        raise ArchiveUnsafeName(reason="an absolute path", entry=shown(name))
    if _DRIVE.match(name):
        raise ArchiveUnsafeName(reason="a drive letter", entry=shown(name))
    path = name.replace("\\", "/")
    if path.count("/") >= limits.max_depth:
        raise ArchiveUnsafeName(reason=f"more than {limits.max_depth} folders deep", entry=shown(name))
    if path == "." or path.endswith("/."):
        raise ArchiveUnsafeName(reason="it names no file", entry=shown(name))
    untidy = _untidy(path)
    if untidy and (dots := _ONLY_DOTS.search(path)):
        raise ArchiveUnsafeName(reason=f"the part {dots[1]!r}", entry=shown(name))
    if len(path) > _PART_LETTERS and not _parts_fit(path):
        raise ArchiveUnsafeName(reason=f"a part longer than {_PART_LETTERS} characters", entry=shown(name))
    # a word is told once, and its sentence is made once: a hundred thousand of them take seconds
    if untidy and "untidy_path" not in warnings:
        warnings["untidy_path"] = f"{shown(name)!r} is not written the same way on every system"
    if "backslash" not in warnings and "\\" in name:
        warnings["backslash"] = f"{shown(name)!r} is a path on some systems and a file name on others"
    if "colon" not in warnings and ":" in name:
        warnings["colon"] = f"Windows cannot write {shown(name)!r}"
    if "noncharacter" not in warnings and not name.isprintable() and _NONCHARACTER.search(name):
        warnings["noncharacter"] = f"{shown(name)!r} has a code that is no character"
    if "direction" not in warnings and not name.isascii() and _DIRECTION.search(name):
        warnings["direction"] = f"{shown(name)!r} changes the direction of writing and may look like another"

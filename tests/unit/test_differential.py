"""What we accept without a warning has the same names and sizes in every other program that is at hand.

Python is always there; Info-ZIP, 7-Zip and bsdtar are asked where they are installed.
"""

import os
import random
import re
import shutil
import subprocess
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.archives import Listing, inspect
from domain.errors.archives import ArchiveRefused
from tests.unit.archive_corpus import DOS_MOMENT, U16, Counted, Member, archive, deflated, described, field_of
from tests.unit.hostile_archives import corpus

SEEDS = 150
NAMES = [
    "a.txt", "b", "folder/", "folder/c d.txt", "x/y/z/with spaces", "-rf", "*?", "a'b\"c", "отчёт.pdf",
    "папка/файл № 1.txt", "日本語.txt", "é.txt", "e\u0301x.txt", "ñandú/", "a&b;c|d", "%41", "@list", "[x]", "{y}",
    "n" * 200, ".hidden", "..hidden", "a..b", " lead", "UPPER.TXT", "$(id)", "`x`", "q,r", "~", "#",
]  # fmt: skip
# what Info-ZIP prints as something else, though it means the same
UNPRINTED = ["👩\u200d💻.png", "no\u00a0break", "a\u00adb", "a\u200bb"]

Rows = list[tuple[str, int]]


def listed(data: bytes) -> Listing:
    return inspect(Counted(data), len(data))


# ---------------------------------------------------------------- archives


def sound(chance: random.Random) -> bytes:
    """An archive in which everything that honest writers do may come together."""
    members = [_member(chance, name) for name in chance.sample(NAMES + UNPRINTED, chance.randint(1, 8))]
    parts: dict[str, Any] = {}
    if chance.random() < 0.2:
        parts["comment"] = chance.choice([b"a comment", "итог".encode(), bytes(10), b"x" * 500])
    if chance.random() < 0.2:
        parts |= {"zip64": True, "sentinels": chance.random() < 0.5}
    if chance.random() < 0.2:  # listed in another order than they lie
        starts = [sum(len(one.local()) for one in members[:place]) for place in range(len(members))]
        shuffled = [replace(one, in_body=False, offset=start) for one, start in zip(members, starts, strict=True)]
        chance.shuffle(shuffled)
        members = [replace(one, in_directory=False) for one in members] + shuffled
    return archive(*members, **parts)


def _member(chance: random.Random, name: str) -> Member:
    folder = name.endswith("/")
    data = b"" if folder else chance.randbytes(chance.choice([0, 1, 100, 3000]))
    more: dict[str, Any] = {
        "flags": 0x800 if not name.isascii() or chance.random() < 0.2 else 0,
        "host": chance.choice([3, 19, 10, 11]),  # Debian's Info-ZIP takes marked names of host 0 for cp437
        "stamp": chance.choice([DOS_MOMENT, 0, 0xFFFFFFFF]),
        "attributes": chance.choice([0o040755 << 16 | 0x10, 0x10, U16 << 16] if folder else [0o100644 << 16, 0, 0x20]),
        "extra": chance.choice([b"", b"", field_of(0x5455, b"\3" + chance.randbytes(8)), bytes(3)]),
        "remark": chance.choice([b"", b"", b"a remark", b"PK\5\6", "прим".encode()]),
    }
    packed = data and chance.random() < 0.5
    member = deflated(name.encode(), data, **more) if packed else Member(name=name.encode(), data=data, **more)
    if not folder and chance.random() < 0.3:
        return described(member, chance.choice(["<4sIII", "<III", "<4sIQQ", "<IQQ"]))
    return member


def cases() -> dict[str, bytes]:
    """Of the corpus and of chance, those that are accepted without a warning."""
    found = {case.name: case.data for case in corpus() if case.code is None and case.name != "empty"}
    found |= {f"seed {seed}": sound(random.Random(seed)) for seed in range(SEEDS)}
    return {name: data for name, data in found.items() if not listed(data).summary.warnings}


CASES = cases()


def test_there_is_enough_to_compare() -> None:
    assert len(CASES) > 100


# ---------------------------------------------------------------- readers


def by_python(path: Path) -> Rows:
    with zipfile.ZipFile(path) as opened:
        return [(one.filename, one.file_size) for one in opened.infolist()]


def _lines(*words: str) -> list[str]:
    run = subprocess.run(words, capture_output=True, timeout=30, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert run.returncode == 0, run.stderr
    return run.stdout.decode(errors="replace").splitlines()


def _rows(pattern: str, lines: list[str]) -> Rows:
    found = [re.match(pattern, line) for line in lines]
    return [(match["name"], int(match["size"])) for match in found if match]


def by_info_zip(path: Path) -> Rows:
    # length, method, packed size, ratio, date, time, checksum, name
    columns = r"^ *(?P<size>\d+) +\S+ +\d+ +\S+ +\S+ +\S+ +[0-9a-f]{8}  (?P<name>.*)$"
    return _rows(columns, _lines("unzip", "-vqq", str(path)))


def by_bsdtar(path: Path) -> Rows:
    # mode, links, owner, group, size, month, day, time or year, name
    columns = r"^\S+ +\d+ +\S+ +\S+ +(?P<size>\d+) +\w+ +\d+ +[\d:]+ (?P<name>.*)$"
    return sorted(_rows(columns, _lines("bsdtar", "-tvf", str(path))))


def by_7zip(path: Path) -> Rows:
    tool = next(tool for tool in SEVEN if shutil.which(tool))
    rows, name = [], ""
    for line in _lines(tool, "l", "-slt", "-ba", "-scsUTF-8", str(path)):
        key, _, value = line.partition(" = ")
        if key == "Path":
            name = value
        elif key == "Size":
            rows.append((name, int(value or 0)))
    return rows


SEVEN = ("7z", "7zz", "7za")
# what each program makes of names that are the same to it, and in which order it lists
READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Rows], Callable[[Rows], Rows]]] = {
    "Python": ((), by_python, lambda rows: rows),
    "7-Zip": (SEVEN, by_7zip, lambda rows: [(name.removesuffix("/"), size) for name, size in rows]),
    "bsdtar": (
        ("bsdtar",),
        by_bsdtar,
        lambda rows: sorted((unicodedata.normalize("NFC", name), size) for name, size in rows),
    ),
    "Info-ZIP": (("unzip",), by_info_zip, lambda rows: rows),
}


@pytest.mark.parametrize("reader", READERS)
def test_other_programs_list_the_same_names_and_sizes(reader: str, tmp_path: Path) -> None:
    tools, read, told = READERS[reader]
    if tools and not any(shutil.which(tool) for tool in tools):
        pytest.skip(f"{reader} is not installed")
    path = tmp_path / "a.zip"
    for name, data in CASES.items():
        ours = [(entry.name, entry.size) for entry in listed(data).entries]
        if reader == "Info-ZIP" and any(
            one[0] in UNPRINTED or not one[0].isprintable() or _rare(one[0]) for one in ours
        ):
            continue
        path.write_bytes(data)
        assert read(path) == told(ours), name


def _rare(name: str) -> bool:
    """Beyond what Info-ZIP 6.0 prints: emoji, and invisible or narrow spaces."""
    return any(ord(one) > U16 or (unicodedata.category(one) in ("Cf", "Zs") and one != " ") for one in name)


def test_names_that_programs_read_differently_come_with_a_warning() -> None:
    for raw, flags in (("Отчёт".encode("cp866"), 0), ("Отчёт".encode(), 0)):
        data = archive(Member(name=raw, flags=flags))
        assert [one.partition(":")[0] for one in listed(data).summary.warnings] == ["name_encoding"]
    with pytest.raises(ArchiveRefused):
        listed(archive(Member(name=b"\xff", flags=0x800)))

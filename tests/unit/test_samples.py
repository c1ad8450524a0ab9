"""The demo's archive is a good archive, and the ML service flags exactly its disguised members."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stack.ml.analysis import BLOCK, Analyst, Row
from stack.ml.configuration import Settings
from stack.ml.endings import CannotInfer
from stack.samples import DISGUISED, make_archive


def settings(**changes: Any) -> Settings:
    return Settings(ml_service_token="a-token-for-the-tests", **changes)


@pytest.fixture(scope="module")
def archive() -> bytes:
    return make_archive()


@pytest.fixture(scope="module")
def analyst() -> Analyst:
    return Analyst(settings())


def analyse(analyst: Analyst, data: bytes, name: str = "sample.zip", threshold: float = 0.5) -> list[Row]:
    return analyst.analyse(io.BytesIO(data), name, threshold, lambda done, total: None)


def packed(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_it_is_a_whole_zip_of_about_forty_files(archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        names = opened.namelist()
        assert opened.testzip() is None
    assert 35 <= len(names) <= 45
    assert len(set(names)) == len(names)
    assert set(names) > DISGUISED
    assert any(not name.isascii() for name in names)


def test_the_same_python_makes_the_same_bytes(archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sample.zip"
    elsewhere = "import sys, pathlib, stack.samples; stack.samples.make_archive(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", elsewhere, str(path)], check=True, timeout=60)
    assert path.read_bytes() == archive


def test_exactly_the_disguised_members_are_flagged(analyst: Analyst, archive: bytes) -> None:
    rows = analyse(analyst, archive)
    assert {row.path for row in rows if row.flagged} == DISGUISED
    assert all(0 <= row.score <= 1 and row.mime_type and row.description for row in rows)


def test_a_threshold_no_score_reaches_flags_nothing(analyst: Analyst) -> None:
    data = packed(("picture.png", b'#!/bin/sh\nset -e\nfor name in *; do echo "$name"; done\n' * 3))
    score = analyse(analyst, data, threshold=0.0)[0].score
    assert analyse(analyst, data, threshold=max(0.0, score - 0.01))[0].flagged
    assert not analyse(analyst, data, threshold=1.0)[0].flagged


def test_the_ends_of_a_file_tell_what_the_whole_file_tells(analyst: Analyst, archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for member in opened.infolist():
            whole = opened.read(member)
            if len(whole) > 2 * BLOCK:
                ends = analyst.look(member.filename, whole[:BLOCK] + whole[-BLOCK:], len(whole), 0.5)
                assert ends == analyst.look(member.filename, whole, len(whole), 0.5)


def test_a_single_file_is_one_row_under_its_own_name(analyst: Analyst) -> None:
    source = Path(__file__).read_bytes() * 4
    (row,) = analyse(analyst, source, "invoice.pdf")
    assert (row.path, row.size, row.detected_type) == ("invoice.pdf", len(source), "python")
    assert (row.expected_type, row.flagged) == ("pdf", True)


def test_a_document_that_comes_as_a_zip_is_one_file(analyst: Analyst, archive: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        workbook = opened.read("data/sacks.xlsx")
    (row,) = analyse(analyst, workbook, "sacks.xlsx")
    assert (row.detected_type, row.flagged) == ("xlsx", False)
    # and a name that promises no more than a ZIP is kept by it
    assert not analyse(analyst, workbook, "sacks.zip")[0].flagged


def test_russian_names_without_the_utf8_flag_are_read(analyst: Analyst) -> None:
    data = packed(("________ ______.txt", b"text of some length\n" * 9))
    written = "Протокол ракиты.txt".encode("cp866")
    assert len(written) == len("________ ______.txt")
    (row,) = analyse(analyst, data.replace(b"________ ______.txt", written))
    assert row.path == "Протокол ракиты.txt"


def test_a_name_never_brings_controls_into_the_spreadsheet(analyst: Analyst) -> None:
    (row,) = analyse(analyst, packed(("a\x07b\u202e.txt", b"text of some length\n" * 9)))
    assert row.path == "a\ufffdb\ufffd.txt"


def test_a_damaged_member_is_one_row_that_says_so(analyst: Analyst) -> None:
    content = b"".join(bytes([n * n % 251]) for n in range(5000))
    stored = zipfile.ZipInfo("first.bin")
    data = bytearray(packed((stored, content), ("second.txt", b"text of some length\n" * 9)))
    data[data.index(content) + 100] ^= 0xFF
    first, second = analyse(analyst, bytes(data))
    assert (first.detected_type, first.score, first.flagged) == ("unreadable", 0.0, False)
    assert second.detected_type == "txt"


def test_more_members_than_the_limit_are_refused(archive: bytes) -> None:
    with pytest.raises(CannotInfer, match="more than 3"):
        analyse(Analyst(settings(ml_max_members=3)), archive)


def test_a_bomb_is_given_up_at_the_limit_of_really_unpacked_bytes() -> None:
    data = packed(*((f"{number}.bin", bytes(1_000_000)) for number in range(5)))
    with pytest.raises(CannotInfer, match="unpacks to more than 2500000 bytes"):
        analyse(Analyst(settings(ml_max_unpacked=2_500_000)), data)


@pytest.mark.parametrize(
    ("name", "detected", "flagged"),
    [
        ("readme.txt", "python", False),  # text is text
        ("readme.txt", "png", True),
        ("photo.jpg", "png", True),
        ("photo.JPG", "jpeg", False),
        ("header.h", "cpp", False),
        ("letter.docx", "zip", False),  # a Word document is a ZIP
        ("letter.docx", "xlsx", True),
        ("letter.docx", "apk", True),
        ("all.zip", "docx", False),
        ("setup.exe", "pebin", False),
        ("module.so", "elf", False),
        ("backup.tar.gz", "gzip", False),
        ("backup.tar.gz", "tar", True),
        ("page.html", "php", False),
        ("script.py", "txt", False),  # too short to be recognised
        ("script.py", "php", True),
        ("data.json", "yaml", True),
        ("data.yaml", "json", False),
        ("holiday.heic", "mp4", False),  # the model never learnt HEIC, which has MP4's container
        ("holiday.heic", "pebin", True),
        ("holiday.heic", "python", True),
        ("state.dat", "pebin", False),  # promises nothing
        ("noextension", "pebin", False),
        (".bashrc", "shell", False),
        ("photo.jpg", "empty", False),
        ("photo.jpg", "unknown", False),
    ],
)
def test_what_a_name_promises(analyst: Analyst, name: str, detected: str, flagged: bool) -> None:
    assert analyst._expectations.contradicts(name, detected) is flagged

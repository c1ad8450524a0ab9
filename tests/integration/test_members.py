"""One member of an archive, by itself, over real HTTP: whole and right, or visibly not."""

import io
import json
import lzma
import random
import time
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from stack.up import Stack
from tests.client import User
from tests.dicom_files import dicom_file
from tests.unit.archive_corpus import Member, archive

BIG = random.Random(7).randbytes(300_000) + b"text that packs well " * 50_000
METHODS = {"stored": 0, "deflated": 8, "bzip2": 12, "lzma": 14}


def made() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("папка/", b"")
        archive.writestr("папка/Отчёт № 1.html", b"<script>alert(1)</script>", zipfile.ZIP_DEFLATED)
        archive.writestr("empty", b"")
        for name, method in METHODS.items():
            archive.writestr(f"big-{name}.bin", BIG, method)
            archive.writestr(f"small-{name}.txt", b"small " * 200, method)
    return target.getvalue()


ARCHIVE = made()
NAMES = zipfile.ZipFile(io.BytesIO(ARCHIVE)).namelist()


@pytest.fixture(scope="module")
def owner(scripted: Stack) -> Iterator[User]:
    with User(scripted.url) as owner:
        yield owner


def ordered(owner: User, content: bytes) -> str:
    """The id of a job whose archive has been inspected."""
    job = owner.finished(owner.order("a.zip", content)["id"])
    assert owner.http.get(f"/jobs/{job['id']}/zip-info").status_code == 200, job
    return str(job["id"])


@pytest.fixture(scope="module")
def job(owner: User) -> str:
    return ordered(owner, ARCHIVE)


def member(owner: User, job: str, index: int) -> httpx.Response:
    return owner.http.get(f"/jobs/{job}/zip-contents/{index}")


@pytest.mark.parametrize("name", [name for name in NAMES if name[-1] != "/"])
def test_a_member_comes_unpacked_and_whole(owner: User, job: str, name: str) -> None:
    answer = member(owner, job, NAMES.index(name))
    assert answer.status_code == 200
    assert answer.content == zipfile.ZipFile(io.BytesIO(ARCHIVE)).read(name)
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(("asked", "found"), [("text/", 5), ("TEXT/", 5), ("text_", 0), ("t%", 0), ("image/", 0)])
def test_entries_are_found_by_the_start_of_their_type_taken_literally(
    owner: User, job: str, asked: str, found: int
) -> None:
    page = owner.http.get(f"/jobs/{job}/zip-contents", params={"content_type": asked}).raise_for_status().json()
    assert len(page["items"]) == found


def test_an_lzma_member_may_ask_for_a_dictionary_of_16_mib_and_not_for_more(owner: User) -> None:
    for mib, status in ((16, 200), (17, 422)):
        chain = {"id": lzma.FILTER_LZMA1, "dict_size": mib * 2**20, "lc": 3, "lp": 0, "pb": 2}
        machine = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[chain])
        head = b"\x09\x14\x05\x00\x5d" + (mib * 2**20).to_bytes(4, "little")
        packed = head + machine.compress(b"text" * 100) + machine.flush()
        one = Member(data=packed, size=400, method=14, flags=2, crc=zlib.crc32(b"text" * 100))
        answer = member(owner, ordered(owner, archive(one)), 0)
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.json()["code"] == "member_damaged"


def test_a_member_that_is_known_is_not_sent_again(owner: User, job: str) -> None:
    known = member(owner, job, 1).headers["etag"]
    again = owner.http.get(f"/jobs/{job}/zip-contents/1", headers={"If-None-Match": known})
    assert (again.status_code, again.content) == (304, b"")
    assert member(owner, job, 2).headers["etag"] != known


def test_a_member_is_an_attachment_under_its_own_name_and_never_a_page(owner: User, job: str) -> None:
    headers = member(owner, job, 1).headers
    assert headers["content-disposition"].startswith("attachment;")
    assert "filename*=UTF-8''%D0%9E%D1%82%D1%87%D1%91%D1%82%20%E2%84%96%201.html" in headers["content-disposition"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]


def test_what_is_no_file_has_an_error_with_a_name(owner: User, job: str) -> None:
    folder = member(owner, job, 0)
    assert (folder.status_code, folder.json()["code"]) == (422, "member_is_folder")
    for index in (len(NAMES), 2**31 - 1):
        answer = member(owner, job, index)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert owner.http.get(f"/jobs/{job}/zip-contents/-1").status_code in (404, 422)


def test_a_member_is_its_owners_alone(scripted: Stack, job: str) -> None:
    with User(scripted.url) as other:
        assert member(other, job, 1).status_code == 404
    assert httpx.get(f"{scripted.url}/api/v1/jobs/{job}/zip-contents/1").status_code == 401


def test_a_job_without_an_archive_has_no_members(owner: User) -> None:
    job = owner.finished(owner.order("a.txt", b"plain text")["id"])
    assert member(owner, job["id"], 0).status_code == 404


# ---------------------------------------------------------------- damage


def damaged(name: str, *, early: bool = False) -> bytes:
    """The archive with one byte of a member's data changed: near its end, or in its first ones."""
    info = zipfile.ZipFile(io.BytesIO(ARCHIVE)).getinfo(name)
    at = info.header_offset + 30 + len(info.filename.encode()) + (3 if early else info.compress_size - 3)
    return ARCHIVE[:at] + bytes([ARCHIVE[at] ^ 0xFF]) + ARCHIVE[at + 1 :]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_small_member_is_refused_before_its_first_byte(owner: User, method: str) -> None:
    name = f"small-{method}.txt"
    answer = member(owner, ordered(owner, damaged(name)), NAMES.index(name))
    assert (answer.status_code, answer.json()["code"]) == (422, "member_damaged")


def test_a_damaged_large_member_never_looks_whole(owner: User) -> None:
    for name in ("big-stored.bin", "big-deflated.bin"):
        job = ordered(owner, damaged(name))
        got: list[bytes] = []
        with owner.http.stream("GET", f"/jobs/{job}/zip-contents/{NAMES.index(name)}") as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                got.extend(answer.iter_raw())
        assert sum(map(len, got)) < len(BIG)


def test_a_damaged_large_member_is_one_line_of_the_log(owner: User, scripted: Stack) -> None:
    log = scripted.data_dir / "logs" / "api.log"
    job = ordered(owner, damaged("big-stored.bin"))
    before = log.stat().st_size
    with pytest.raises(httpx.RemoteProtocolError):
        member(owner, job, NAMES.index("big-stored.bin"))
    deadline = time.monotonic() + 10
    while f"{job}/zip-contents" not in (said := log.read_bytes()[before:].decode()) and time.monotonic() < deadline:
        time.sleep(0.05)
    (line,) = [json.loads(one) for one in said.splitlines() if "answer_cut" in one]
    assert (line["level"], line["code"]) == ("warning", "member_damaged")
    assert "Traceback" not in said


def test_a_member_that_declares_less_than_it_holds_is_cut_off_at_its_size(
    owner: User, rows: psycopg.Connection[dict[str, Any]]
) -> None:
    job = ordered(owner, ARCHIVE)
    index = NAMES.index("small-deflated.txt")
    rows.execute("UPDATE archive_entries SET size = size - 1 WHERE job_id = %s AND index = %s", (job, index))
    answer = member(owner, job, index)
    assert (answer.status_code, answer.json()["code"]) == (422, "member_damaged")
    assert "more than its 1199 bytes" in answer.json()["detail"]


def test_a_listing_of_an_earlier_version_says_what_to_do(owner: User, rows: psycopg.Connection[dict[str, Any]]) -> None:
    job = ordered(owner, ARCHIVE)
    rows.execute("UPDATE archive_entries SET header_offset = NULL WHERE job_id = %s", (job,))
    answer = member(owner, job, 1)
    assert (answer.status_code, answer.json()["code"]) == (409, "member_not_located")


def test_a_reader_that_leaves_takes_nothing_with_it(owner: User, job: str) -> None:
    for _ in range(5):
        with owner.http.stream("GET", f"/jobs/{job}/zip-contents/{NAMES.index('big-lzma.bin')}") as answer:
            next(answer.iter_raw())
    assert member(owner, job, 1).status_code == 200


# ---------------------------------------------------------------- DICOM


def test_the_summary_of_an_archive_says_what_its_dicom_is(owner: User) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"study/{number % 2}/{number:04}.dcm", dicom_file(1, number % 2, number))
        archive.writestr("study/broken.dcm", b"no DICOM at all")
        archive.writestr("study/half.dcm", dicom_file()[:140])
        archive.writestr("README", b"text")
    info = owner.http.get(f"/jobs/{ordered(owner, target.getvalue())}/zip-info").json()
    found = info["dicom"]
    assert (found["studies"], found["series"], found["slices"], found["complete"]) == (1, 2, 20, True)
    assert (found["modalities"], found["body_parts"], found["unreadable"]) == (["CT"], ["CHEST"], 2)
    assert [(one["modality"], one["slices"]) for one in found["by_series"]] == [("CT", 10), ("CT", 10)]
    assert info["warnings"] == ["dicom: 2 members, the first 'study/broken.dcm', cannot be read"]


def test_an_archive_without_dicom_says_nothing_of_it(owner: User, job: str) -> None:
    assert owner.http.get(f"/jobs/{job}/zip-info").json()["dicom"] is None


def test_a_local_header_that_contradicts_the_directory_was_seen_while_it_was_sent(owner: User) -> None:
    members = [Member(name=b"%02d" % number, data=bytes(200_000)) for number in range(4)]
    members[1].local_name = b"xx"  # far from the end, which is all that an inspection reads
    job = owner.finished(owner.order("a.zip", archive(*members))["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "archive_header_mismatch")
    assert "'01'" in job["error"]["message"]

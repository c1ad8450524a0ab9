"""Resumable uploads by tus 1.0.0, verb by verb: headers and status codes of the protocol, and what comes of them."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from stack.up import Stack, running
from tests.tus_client import OCTETS, TUS, Tus, checksum, meta

MIB = 1024**2
LIMIT = 64 * MIB


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(env={"MAX_UPLOAD_BYTES": str(LIMIT)}, only=["api"]) as stack:
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


# ---------------------------------------------------------------- the core


def test_options_say_what_the_server_can_do_to_anybody(stack: Stack) -> None:
    for path in ("/uploads", f"/uploads/{uuid4()}"):
        answer = httpx.options(f"{stack.url}/api/v1{path}")
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert answer.headers["Tus-Max-Size"] == str(LIMIT)
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,md5"
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            "creation", "creation-with-upload", "creation-defer-length", "checksum", "termination", "expiration",
            "concatenation",
        }  # fmt: skip


@pytest.mark.parametrize("size", [1, 3 * MIB, 5 * MIB, 12 * MIB + 7])
def test_an_upload_in_one_request(tus: Tus, size: int) -> None:
    content = os.urandom(size)
    path = tus.create(size, filename="отчёт.bin", filetype="application/x-report")
    assert tus.offset(path) == 0
    answer = tus.patch(path, 0, content)
    assert answer.status_code == 204, answer.text
    assert answer.headers["Upload-Offset"] == str(size)
    upload = tus.read(path)
    assert upload["state"] == "complete"
    assert answer.headers["Millrace-File"] == upload["file"]["filename"]
    assert (upload["file"]["name"], upload["job_id"]) == ("отчёт.bin", None)
    assert tus.download(path) == content


def test_pieces_below_the_smallest_part_of_the_store(tus: Tus) -> None:
    content = os.urandom(13 * MIB + 11)
    path = tus.create(len(content))
    offset = 0
    while offset < len(content):
        answer = tus.patch(path, offset, content[offset : offset + MIB])
        assert answer.status_code == 204, answer.text
        offset = int(answer.headers["Upload-Offset"])
        assert offset == tus.offset(path)
    assert tus.download(path) == content


def test_head_tells_where_an_upload_stands(tus: Tus) -> None:
    path = tus.create(10, filename="a.txt")
    tus.patch(path, 0, b"12345")
    answer = tus.head(path)
    assert answer.status_code == 200
    assert (answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == ("5", "10")
    assert answer.headers["Upload-Metadata"] == meta(filename="a.txt")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Upload-Concat" not in answer.headers
    assert "Millrace-File" not in answer.headers


def test_the_version_must_be_said_and_is_said_in_every_answer(tus: Tus) -> None:
    path = tus.create(3)
    for method in ("HEAD", "PATCH", "DELETE", "POST"):
        for said in ({}, {"Tus-Resumable": "0.2.2"}):
            answer = tus.http.request(method, f"{tus.url}{path}", headers=said)
            assert answer.status_code == 412, method
            assert (answer.headers["Tus-Version"], answer.headers["Tus-Resumable"]) == ("1.0.0", "1.0.0")
    assert tus.http.post("/uploads", headers={"Upload-Length": "3"}).status_code == 412
    answer = httpx.head(f"{tus.url}{path}", headers=TUS)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (401, "1.0.0")
    assert tus.offset(path) == 0


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    return answer.status_code, answer.json()["code"]


def test_a_patch_that_does_not_fit_changes_nothing(tus: Tus) -> None:
    path = tus.create(10)
    assert tus.patch(path, 0, b"12345").status_code == 204
    assert code(tus.patch(path, 0, b"12345")) == (409, "upload_offset_mismatch")
    assert code(tus.patch(path, 6, b"6789")) == (409, "upload_offset_mismatch")
    assert code(tus.patch(path, 5, b"5", Content_Type="text/plain")) == (415, "unsupported_media_type")
    assert code(tus.patch(path, 5, b"678901")) == (413, "body_too_large")
    assert code(tus.patch(path, 5, b"5", Upload_Offset="five")) == (400, "upload_header")
    without = tus.http.patch(f"{tus.url}{path}", headers={**TUS, "Content-Type": OCTETS}, content=b"5")
    assert code(without) == (400, "upload_header")
    assert tus.offset(path) == 5
    assert tus.patch(path, 5, b"67890").status_code == 204
    assert tus.download(path) == b"1234567890"


def test_a_finished_upload_refuses_more_and_its_last_patch_sent_again_makes_nothing(tus: Tus) -> None:
    path = tus.create(4, filename="a.txt", job="inference")
    assert tus.patch(path, 0, b"abcd").status_code == 204
    before = tus.read(path)
    assert code(tus.patch(path, 0, b"abcd")) == (409, "upload_offset_mismatch")
    assert code(tus.patch(path, 4, b"e")) == (409, "conflict")
    assert code(tus.patch(path, 4, b"")) == (409, "conflict")
    assert tus.read(path) == before
    assert len(tus.http.get("/files").json()["items"]) == 1
    assert len(tus.http.get("/jobs").json()["items"]) == 1


def test_more_than_announced_is_refused_where_no_length_is_sent(tus: Tus) -> None:
    path = tus.create(10)
    assert code(tus.patch(path, 0, iter([b"12345", b"67890", b"1"]))) == (413, "body_too_large")
    assert tus.offset(path) in (0, 5, 10)


def test_a_method_may_be_named_in_a_header(tus: Tus) -> None:
    path = tus.create(3)

    def override(method: str, content: bytes = b"", **headers: str) -> httpx.Response:
        said = {**TUS, "X-HTTP-Method-Override": method, **headers}
        return tus.http.post(f"{tus.url}{path}", headers=said, content=content)

    assert override("PATCH", b"abc", **{"Upload-Offset": "0", "Content-Type": OCTETS}).status_code == 204
    assert override("HEAD").headers["Upload-Offset"] == "3"
    assert override("PUT").status_code == 405
    assert override("DELETE").status_code == 204
    assert tus.head(path).status_code == 404


def test_nobody_else_sees_an_upload(tus: Tus, stack: Stack) -> None:
    path = tus.create(3)
    with Tus(stack.url) as other:
        assert other.head(path).status_code == 404
        assert code(other.patch(path, 0, b"abc")) == (404, "not_found")
        assert other.http.get(f"{tus.url}{path}").status_code == 404
        assert other.http.delete(f"{tus.url}{path}", headers=TUS).status_code == 404
    assert tus.patch(path, 0, b"abc").status_code == 204


# ---------------------------------------------------------------- creation


def test_creation_is_refused_where_it_contradicts_itself(tus: Tus) -> None:
    for headers in (
        {},
        {"Upload-Length": "3", "Upload-Defer-Length": "1"},
        {"Upload-Length": "-3"},
        {"Upload-Length": "3.0"},
        {"Upload-Defer-Length": "2"},
        {"Upload-Length": "3", "Upload-Metadata": "filename !!!"},
        {"Upload-Length": "3", "Upload-Metadata": "a YQ==,a YQ=="},
        {"Upload-Length": "3", "Upload-Metadata": "a AAAA"},
        {"Upload-Length": "3", "Upload-Concat": "final"},
        {"Upload-Length": "3", "Upload-Concat": "final;/nowhere"},
    ):
        assert code(tus.post(headers=headers)) == (400, "upload_header"), headers
    assert code(tus.post(LIMIT + 1)) == (413, "body_too_large")


def test_an_empty_upload_is_complete_at_once(tus: Tus) -> None:
    answer = tus.post(0, filename="empty.txt")
    assert answer.status_code == 201
    assert answer.headers["Millrace-File"] == answer.json()["file"]["filename"]
    assert tus.download(answer.headers["Location"]) == b""


def test_creation_with_the_first_bytes_or_all(tus: Tus) -> None:
    answer = tus.post(6, {"Content-Type": OCTETS}, b"abc")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "3")
    path = answer.headers["Location"]
    assert tus.patch(path, 3, b"def").status_code == 204
    assert tus.download(path) == b"abcdef"
    whole = tus.post(3, {"Content-Type": OCTETS}, b"abc")
    assert whole.headers["Millrace-File"] == whole.json()["file"]["filename"]
    assert code(tus.post(3, {"Content-Type": OCTETS}, b"abcd")) == (413, "body_too_large")


@pytest.mark.parametrize("size", [3, 5 * MIB, 7 * MIB])
def test_the_length_may_be_said_later(tus: Tus, size: int) -> None:
    content = os.urandom(size)
    path = tus.create(headers={"Upload-Defer-Length": "1"})
    assert tus.head(path).headers["Upload-Defer-Length"] == "1"
    assert "Upload-Length" not in tus.head(path).headers
    assert tus.patch(path, 0, content).status_code == 204
    assert tus.read(path)["state"] == "receiving"
    assert code(tus.patch(path, size, b"", Upload_Length=str(size - 1))) == (400, "upload_header")
    assert code(tus.patch(path, size, b"", Upload_Length=str(LIMIT + 1))) == (413, "body_too_large")
    assert tus.patch(path, size, b"", Upload_Length=str(size)).status_code == 204
    assert tus.head(path).headers["Upload-Length"] == str(size)
    assert tus.download(path) == content


def test_the_length_once_said_stays(tus: Tus) -> None:
    path = tus.create(headers={"Upload-Defer-Length": "1"})
    assert tus.patch(path, 0, b"ab", Upload_Length="4").status_code == 204
    assert code(tus.patch(path, 2, b"c", Upload_Length="5")) == (400, "upload_header")
    assert tus.patch(path, 2, b"cd", Upload_Length="4").status_code == 204
    assert tus.download(path) == b"abcd"


# ---------------------------------------------------------------- checksum


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_bytes_with_another_checksum_are_not_kept(tus: Tus, algorithm: str) -> None:
    path = tus.create(6)
    assert tus.patch(path, 0, b"abc", Upload_Checksum=checksum(algorithm, b"abc")).status_code == 204
    wrong = tus.patch(path, 3, b"dxf", Upload_Checksum=checksum(algorithm, b"def"))
    assert code(wrong) == (460, "checksum_mismatch")
    assert tus.offset(path) == 3
    assert tus.patch(path, 3, b"def", Upload_Checksum=checksum(algorithm, b"def")).status_code == 204
    assert tus.download(path) == b"abcdef"


def test_a_large_body_is_verified_before_anything_of_it_is_kept(tus: Tus) -> None:
    content = os.urandom(17 * MIB)
    path = tus.create(len(content))
    assert tus.patch(path, 0, content[:MIB]).status_code == 204
    rest = content[MIB:]
    wrong = tus.patch(path, MIB, rest[:-1] + bytes([rest[-1] ^ 1]), Upload_Checksum=checksum("sha256", rest))
    assert code(wrong) == (460, "checksum_mismatch")
    assert tus.offset(path) == MIB
    chunks = iter([rest[: 8 * MIB], rest[8 * MIB :]])
    assert tus.patch(path, MIB, chunks, Upload_Checksum=checksum("sha256", rest)).status_code == 204
    assert tus.download(path) == content


def test_a_checksum_must_be_one(tus: Tus) -> None:
    path = tus.create(3)
    for said in ("crc32 YWJj", "sha1", "sha1 YWJj", "sha1 ???"):
        assert code(tus.patch(path, 0, b"abc", Upload_Checksum=said)) == (400, "upload_header")
    assert tus.offset(path) == 0


# ---------------------------------------------------------------- termination and expiration


def test_what_is_ended_is_gone_and_the_file_of_a_complete_upload_stays(tus: Tus) -> None:
    begun = tus.create(20 * MIB)
    tus.patch(begun, 0, os.urandom(6 * MIB))
    assert tus.http.delete(f"{tus.url}{begun}", headers=TUS).status_code == 204
    assert tus.head(begun).status_code == 404
    assert tus.patch(begun, 6 * MIB, b"x").status_code == 404
    assert tus.http.delete(f"{tus.url}{begun}", headers=TUS).status_code == 404
    kept = tus.create(3)
    made = tus.patch(kept, 0, b"abc").headers["Millrace-File"]
    assert tus.http.delete(f"{tus.url}{kept}", headers=TUS).status_code == 204
    assert tus.http.get(f"/download/{made}").content == b"abc"


def test_until_when_an_upload_can_be_gone_on_with_is_said(tus: Tus) -> None:
    created = tus.post(6)
    path = created.headers["Location"]
    answers = [created, tus.patch(path, 0, b"abc"), tus.head(path)]
    times = [parsedate_to_datetime(answer.headers["Upload-Expires"]) for answer in answers]
    assert times == sorted(times)
    assert all(answer.headers["Upload-Expires"].endswith("GMT") for answer in answers)


# ---------------------------------------------------------------- concatenation


def partial(tus: Tus, content: bytes) -> str:
    path = tus.create(len(content), {"Upload-Concat": "partial"})
    if content:
        assert tus.patch(path, 0, content).status_code == 204
    assert tus.head(path).headers["Upload-Concat"] == "partial"
    return path


def final(tus: Tus, *paths: str, **metadata: str) -> httpx.Response:
    return tus.post(headers={"Upload-Concat": "final;" + " ".join(paths)}, **metadata)


@pytest.mark.parametrize("sizes", [(3, 0, 4), (6 * MIB, 1, 5 * MIB + 3), (2 * MIB, 2 * MIB, 2 * MIB)])
def test_partial_uploads_become_one_file(tus: Tus, sizes: tuple[int, ...]) -> None:
    contents = [os.urandom(size) for size in sizes]
    paths = [partial(tus, content) for content in contents]
    assert tus.http.get("/files").json()["items"] == []
    answer = final(tus, *[f"{tus.url}{paths[0]}", *paths[1:]], filename="whole.bin")
    assert answer.status_code == 201, answer.text
    path = answer.headers["Location"]
    head = tus.head(path)
    assert head.headers["Upload-Concat"] == "final;" + " ".join(paths)
    assert head.headers["Upload-Length"] == head.headers["Upload-Offset"] == str(sum(sizes))
    assert tus.download(path) == b"".join(contents)
    assert len(tus.http.get("/files").json()["items"]) == 1
    assert code(tus.patch(path, sum(sizes), b"x")) == (403, "upload_is_final")


def test_a_final_upload_is_made_of_ones_own_complete_partial_ones(tus: Tus, stack: Stack) -> None:
    done, unfinished, plain = partial(tus, b"abc"), tus.create(3, {"Upload-Concat": "partial"}), tus.create(3)
    tus.patch(plain, 0, b"abc")
    assert code(final(tus, done, unfinished)) == (409, "conflict")
    assert code(final(tus, done, plain)) == (409, "conflict")
    assert code(final(tus, done, f"/api/v1/uploads/{uuid4()}")) == (404, "not_found")
    with Tus(stack.url) as other:
        assert code(final(other, done)) == (404, "not_found")
    assert final(tus, done, done).json()["file"]["size"] == 6


def test_a_final_upload_that_is_ordered_again_with_its_key_is_made_once(tus: Tus) -> None:
    piece = partial(tus, b"abc")
    headers = {"Upload-Concat": f"final;{piece} {piece}", "Idempotency-Key": "made-once"}
    first, second = tus.post(headers=headers, job="inference"), tus.post(headers=headers, job="inference")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.headers["Location"] == second.headers["Location"]
    assert code(tus.post(headers=headers, job="inference", title="another")) == (422, "idempotency_mismatch")
    assert len(tus.http.get("/files").json()["items"]) == len(tus.http.get("/jobs").json()["items"]) == 1


# ---------------------------------------------------------------- jobs


def test_the_metadata_orders_a_job_as_a_form_would(tus: Tus) -> None:
    said = {"title": "Снимки", "description": "d", "profile": "default", "threshold": "0.25", "priority": "high"}
    path = tus.create(4, filename="a.txt", job="inference", **said)
    assert tus.http.get("/jobs").json()["items"] == []
    answer = tus.patch(path, 0, b"abcd")
    job = tus.job(answer.headers["Millrace-Job"])
    assert {name: job[name] for name in said} == {**said, "threshold": 0.25}
    assert job["file"]["filename"] == answer.headers["Millrace-File"]
    assert job["status"] == "queued"
    assert tus.read(path)["job_id"] == job["id"] == tus.head(path).headers["Millrace-Job"]
    assert tus.http.delete(f"/jobs/{job['id']}").status_code == 204
    upload = tus.read(path)
    assert (upload["state"], upload["file"], upload["job_id"]) == ("complete", None, None)


def test_an_order_that_cannot_be_is_refused_before_any_byte(tus: Tus) -> None:
    assert code(tus.post(3, job="nonsense"))[0] == 422
    assert code(tus.post(3, job="inference", threshold="2")) == (422, "invalid")
    assert code(tus.post(3, job="inference", profile="x-ray")) == (422, "unknown_profile")


# ---------------------------------------------------------------- several at once


def test_of_two_at_once_one_wins_and_nothing_is_mixed(tus: Tus) -> None:
    size = 8 * MIB
    contents = [bytes([which]) * size for which in (1, 2, 3, 4)]
    path = tus.create(size)
    begin = threading.Barrier(len(contents))

    def send(content: bytes) -> httpx.Response:
        begin.wait()
        return tus.patch(path, 0, content)

    with ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(send, contents))
    assert sorted(answer.status_code for answer in answers)[0] == 204
    assert {answer.status_code for answer in answers if answer.status_code != 204} <= {409, 423}
    (winner,) = [content for content, answer in zip(contents, answers, strict=True) if answer.status_code == 204]
    assert tus.download(path) == winner


# ---------------------------------------------------------------- the page


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example needs curl")
def test_the_example_of_the_documentation(tus: Tus, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/http.md").read_text()
    (example,) = re.findall(r"```sh\n(AUTH=.*?)```", page, re.DOTALL)
    content = os.urandom(MIB)
    (tmp_path / "scans.zip").write_bytes(content)
    env = {**os.environ, "API": tus.url, "TOKEN": tus.http.headers["Authorization"].split()[1]}
    ran = subprocess.run(["sh", "-ec", example], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    upload = json.loads(ran.stdout.splitlines()[-1])
    (job,) = tus.http.get("/jobs").json()["items"]
    assert (upload["state"], upload["job_id"]) == ("complete", job["id"])
    assert (upload["file"]["name"], upload["file"]["sha256"]) == ("scans.zip", hashlib.sha256(content).hexdigest())

"""POST of tus 1.0.0: creation, also with bytes, of unknown length, of partial uploads, and with an order for a job."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from stack.up import Stack
from tests.tus_client import OCTETS, TUS, TUS_LIMIT, Tus, code, digest, partial

MIB = 1024**2


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
    assert code(tus.post(TUS_LIMIT + 1)) == (413, "body_too_large")


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


def test_first_bytes_with_another_digest_are_no_upload(tus: Tus) -> None:
    for field in ("Content-Digest", "Repr-Digest"):
        wrong = tus.post(3, {"Content-Type": OCTETS, field: digest(b"abd")}, b"abc")
        assert code(wrong) == (422, "digest_mismatch")
        assert "Location" not in wrong.headers
    assert tus.http.get("/files").json()["items"] == []
    right = tus.post(3, {"Content-Type": OCTETS, "Content-Digest": digest(b"abc")}, b"abc")
    assert right.status_code == 201
    assert tus.download(right.headers["Location"]) == b"abc"


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


def test_a_final_upload_is_made_of_ones_own_complete_partial_ones(tus: Tus, tus_stack: Stack) -> None:
    done, unfinished, plain = partial(tus, b"abc"), tus.create(3, {"Upload-Concat": "partial"}), tus.create(3)
    tus.patch(plain, 0, b"abc")
    assert code(final(tus, done, unfinished)) == (409, "conflict")
    assert code(final(tus, done, plain)) == (409, "conflict")
    assert code(final(tus, done, f"/api/v1/uploads/{uuid4()}")) == (404, "not_found")
    with Tus(tus_stack.url) as other:
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

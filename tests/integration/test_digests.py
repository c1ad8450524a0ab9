"""What is sent is checked against its digest (RFC 9530) before anything is kept, by every way of sending a file."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stack.up import Stack, running
from storage import objects
from tests.client import User
from tests.own_settings import settings_of

DATA = b"PK\x03\x04" + os.urandom(300_000)
LARGE = os.urandom(34 * 1024**2)  # two parts
FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
PLAIN = {"Content-Type": "application/x-test"}


@pytest.fixture(scope="module")
def api() -> Iterator[Stack]:
    with running(only=["api"]) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture
def user(api: Stack) -> Iterator[User]:
    with User(api.url) as user:
        yield user


def digest(data: bytes, algorithm: str = "sha-256") -> str:
    return f"{algorithm}=:{b64encode(hashlib.new(algorithm.replace('-', ''), data).digest()).decode()}:"


def form(data: bytes, *part_headers: str) -> bytes:
    head = ["--xyz", 'Content-Disposition: form-data; name="file"; filename="a.bin"', *part_headers, "", ""]
    return "\r\n".join(head).encode() + data + b"\r\n--xyz--\r\n"


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    problem: dict[str, Any] = answer.json()
    return problem


# ---------------------------------------------------------------- what agrees


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_what_agrees_is_stored_by_every_way(user: User, field: str, algorithm: str) -> None:
    body = form(DATA)
    said = {field: digest(DATA, algorithm)}
    for answer in (
        user.http.post("/upload", content=DATA, headers=PLAIN | said),
        user.http.put("/upload", content=iter([DATA[:100], DATA[100:]]), headers=PLAIN | said),
        user.http.post("/upload", content=body, headers=FORM | {field: digest(body, algorithm)}),
        user.http.post("/upload", content=form(DATA, f"{field}: {said[field]}"), headers=FORM),
    ):
        assert answer.status_code == 201, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    "field",
    [
        "md5=:AAAA:, sha-256={right}",
        "sha-256=:{wrong}:, sha-256={right}",  # the last of a key counts (RFC 9651, 3.2)
        "sha-256={right};q=1 ,\tunixsum=5",
        "md5=:AAAA:",
        "",
    ],
)
def test_fields_are_read_as_dictionaries_and_unknown_algorithms_ignored(user: User, field: str) -> None:
    right, wrong = digest(DATA).removeprefix("sha-256="), b64encode(bytes(32)).decode()
    said = {"Content-Digest": field.format(right=right, wrong=wrong)}
    assert user.http.post("/upload", content=DATA, headers=PLAIN | said).status_code == 201


def test_several_lines_are_one_field(user: User) -> None:
    lines = [("Content-Type", "text/plain"), ("Content-Digest", "a=1"), ("Content-Digest", digest(DATA, "sha-512"))]
    assert user.http.post("/upload", content=DATA, headers=lines).status_code == 201
    lines[1] = ("Content-Digest", digest(b"other"))
    refused(user.http.post("/upload", content=DATA, headers=lines), 422, "digest_mismatch")


# ---------------------------------------------------------------- what does not


def sent_wrong(user: User, how: str, data: bytes) -> httpx.Response:
    other = digest(data + b"x", "sha-512")
    match how:
        case "body":
            return user.http.put("/upload", content=data, headers=PLAIN | {"Content-Digest": other})
        case "body of unknown length":
            return user.http.put("/upload", content=iter([data]), headers=PLAIN | {"Repr-Digest": other})
        case "form":
            body = form(data)
            return user.http.post("/upload", content=body, headers=FORM | {"Content-Digest": digest(data)})
        case "part":
            return user.http.post("/upload", content=form(data, f"Content-Digest: {other}"), headers=FORM)
        case "job":
            return user.http.post("/jobs?title=t", content=data, headers=PLAIN | {"Content-Digest": other})
    job = user.http.post("/jobs", json={}).json()
    return user.http.put(f"/jobs/{job['id']}/file", content=data, headers=PLAIN | {"Content-Digest": other})


@pytest.mark.parametrize("how", ["body", "body of unknown length", "form", "part", "job", "attached"])
@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_a_mismatch_is_422_and_leaves_nothing(user: User, how: str, data: bytes) -> None:
    before = objects.below("")
    problem = refused(sent_wrong(user, how, data), 422, "digest_mismatch")
    assert problem["field"] in ("Content-Digest", "Repr-Digest")
    assert problem["details"]["algorithm"] in ("sha-256", "sha-512")
    assert problem["retryable"]
    assert (objects.below(""), objects.unfinished()) == (before, [])
    assert user.http.get("/files").json()["items"] == []
    assert [job["status"] for job in user.http.get("/jobs").json()["items"]] == ["pending"] * (how == "attached")


def test_after_a_mismatch_the_same_key_takes_the_right_body(user: User) -> None:
    headers = PLAIN | {"Idempotency-Key": "one", "Content-Digest": digest(DATA)}
    refused(user.http.post("/upload", content=DATA[1:], headers=headers), 422, "digest_mismatch")
    made = user.http.post("/upload", content=DATA, headers=headers)
    again = user.http.post("/upload", content=DATA, headers=headers)
    assert (made.status_code, again.json()) == (201, made.json())
    assert again.headers["idempotency-replayed"] == "true"


def test_an_order_as_json_is_checked_too(user: User) -> None:
    headers = {"Content-Type": "application/json", "Content-Digest": digest(b"{}")}
    refused(user.http.post("/jobs", content=b'{"title":"t"}', headers=headers), 422, "digest_mismatch")
    assert user.http.post("/jobs", content=b"{}", headers=headers).status_code == 202


@pytest.mark.parametrize(
    "field", ["sha-256", "sha-256=:AAAA:", 'sha-256="x"', "sha-256=:!:", "sha-256=(:AAAA:)", "=", ","]
)
def test_a_field_that_cannot_be_read_is_malformed(user: User, field: str) -> None:
    for headers, content in (
        (PLAIN | {"Content-Digest": field}, DATA),
        (FORM, form(DATA, f"Content-Digest: {field}")),
    ):
        answer = user.http.post("/upload", content=content, headers=headers)
        assert refused(answer, 400, "malformed_request")["field"] == "Content-Digest"
    assert user.http.get("/files").json()["items"] == []


# ---------------------------------------------------------------- downloads say theirs


def test_a_download_says_the_digest_of_the_whole(user: User) -> None:
    job = user.http.post("/jobs", content=DATA, headers=PLAIN).json()
    for path in (f"/jobs/{job['id']}/file", f"/download/{job['file']['filename']}"):
        for method, more, status in (("GET", {}, 200), ("HEAD", {}, 200), ("GET", {"Range": "bytes=5-9"}, 206)):
            answer = user.http.request(method, path, headers=more)
            assert answer.status_code == status
            assert answer.headers["repr-digest"] == digest(DATA)
            assert int(answer.headers["content-length"]) == (len(DATA) if status == 200 else 5)


# ---------------------------------------------------------------- every way makes files and jobs


def test_a_job_is_ordered_with_the_file_as_the_body(user: User) -> None:
    query = {"title": "Снимки", "threshold": "0.25", "priority": "high", "name": "снимки.zip"}
    answer = user.http.post("/jobs", params=query, content=DATA, headers={"Content-Type": "application/zip"})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["title"], job["threshold"], job["status"]) == ("Снимки", 0.25, "queued")
    assert (job["file"]["name"], job["file"]["size"], job["file"]["type"]) == ("снимки.zip", len(DATA), "zip")
    named = user.http.post("/jobs", content=b"x", headers=PLAIN | {"Content-Disposition": 'attachment; filename="a.b"'})
    assert named.json()["title"] == "a.b"


def test_a_job_is_ordered_with_an_earlier_upload(user: User) -> None:
    file = user.http.post("/upload", content=DATA, headers=PLAIN).json()
    for answer in (
        user.http.post("/jobs", json={"filename": file["filename"]}),
        user.http.post("/jobs", files={"filename": (None, file["filename"])}),
    ):
        assert answer.status_code == 202, answer.text
        assert answer.json()["file"]["filename"] == file["filename"]
    both = user.http.post("/jobs", files={"file": ("a", b"x")}, data={"filename": file["filename"]})
    assert refused(both, 422, "invalid")["field"] == "filename"


@pytest.mark.parametrize(
    ("query", "field"),
    [("?threshold=2", "threshold"), ("?wrong=1", "wrong"), ("?title=a&title=b", "title"), ("?title=%00", "title")],
)
def test_a_wrong_query_orders_nothing(user: User, query: str, field: str) -> None:
    before = objects.below("")
    problem = refused(user.http.post(f"/jobs{query}", content=DATA, headers=PLAIN), 422, "invalid")
    assert field in (problem.get("field") or problem["detail"])
    assert objects.below("") == before


def test_a_body_of_no_thought_of_type_is_no_file(user: User) -> None:
    refused(user.http.post("/jobs", data={"title": "t"}), 415, "unsupported_media_type")
    refused(user.http.post("/jobs", content=b"x"), 415, "unsupported_media_type")
    assert user.http.get("/jobs").json()["items"] == []


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/upload", "OPTIONS, POST, PUT"),
        ("/jobs", "GET, OPTIONS, POST"),
        ("/download/x", "GET, HEAD, OPTIONS"),
        ("/jobs/01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77", "DELETE, GET, OPTIONS, PUT"),
        ("/jobs/01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77/file", "GET, HEAD, OPTIONS, PUT"),
        ("/jobs/01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77/results.xlsx", "GET, HEAD, OPTIONS"),
    ],
)
def test_every_method_of_a_path_is_told(user: User, path: str, methods: str) -> None:
    answer = user.http.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)
    refused_one = user.http.patch(path)
    assert refused_one.status_code == 405
    assert set(refused_one.headers["allow"].split(", ")) == set(methods.split(", "))

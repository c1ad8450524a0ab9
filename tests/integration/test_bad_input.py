"""Bad input to the jobs' endpoints: each has its code, and leaves nothing behind."""

import gzip
import http.client
import json
import socket
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from stack.up import Stack
from tests.client import User

Rows = psycopg.Connection[dict[str, Any]]


def count(rows: Rows) -> tuple[int, int]:
    found = rows.execute("SELECT (SELECT count(*) FROM jobs) AS jobs, (SELECT count(*) FROM files) AS files").fetchone()
    assert found is not None
    return found["jobs"], found["files"]


def objects(stack: Stack) -> set[str]:
    bucket = stack.data_dir / "s3" / "millrace"
    return {str(path.relative_to(bucket)) for path in bucket.rglob("*") if path.is_file()}


@pytest.mark.parametrize("token", [None, "nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."])
def test_without_a_valid_token_nothing_opens(scripted: Stack, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for method, path in (("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/jobs/x/events"), ("POST", "/upload")):
        answer = httpx.request(method, f"{scripted.url}/api/v1{path}", headers=headers)
        if path.startswith("/jobs/x"):
            continue  # no such route: an id is a UUID
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), path
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert "Bearer" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"threshold": "1.5"}, "invalid", "threshold"),
        ({"threshold": "-0.1"}, "invalid", "threshold"),
        ({"threshold": "high"}, "invalid", "threshold"),
        ({"threshold": "nan"}, "invalid", "threshold"),
        ({"profile": "quantum"}, "unknown_profile", "profile"),
        ({"kind": "recordings"}, "invalid", "kind"),
        ({"title": "x" * 256}, "invalid", "title"),
        ({"colour": "red"}, "invalid", None),
    ],
)
def test_a_bad_order_names_the_field_and_leaves_neither_job_nor_object(
    scripted: Stack, scripted_user: User, rows: Rows, fields: dict[str, str], code: str, field: str | None
) -> None:
    before = count(rows), objects(scripted)
    answer = scripted_user.http.post("/jobs", files={"file": ("a.txt", b"text" * 100)}, data=fields)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code), problem
    if field is not None:
        assert problem["field"] == field
    assert (count(rows), objects(scripted)) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_request"),
        (b"[]", 422, "invalid"),
        (b'{"threshold": 2}', 422, "invalid"),
        (b'{"threshold": "0.5"}', 422, "invalid"),
        (b'{"filename": "not-there.zip"}', 404, "not_found"),
        (b'{"filename": 5}', 422, "invalid"),
        (b"\xff\xfe", 400, "malformed_request"),
        (b'{"title": "\xff"}', 400, "malformed_request"),
        (b"[" * 60_000, 422, "invalid"),
        (b'{"title": "a\\u0000b"}', 422, "invalid"),
        (b" " * 70_000, 413, "body_too_large"),
    ],
)
def test_a_bad_order_in_json(scripted_user: User, rows: Rows, body: bytes, status: int, code: str) -> None:
    before = count(rows)
    answer = scripted_user.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert count(rows) == before


def test_what_cannot_be_stored_or_read_is_never_a_500(scripted: Stack, scripted_user: User) -> None:
    job = scripted_user.http.post("/jobs", json={}).json()
    answers = [
        scripted_user.http.get("/jobs", params={"text": "\0"}),
        scripted_user.http.put(f"/jobs/{job['id']}", json={"title": "a\0b"}),
        scripted_user.http.put(f"/jobs/{job['id']}", json={"description": "a\0b"}),
        scripted_user.http.get("/files", params={"name": "\0"}),
    ]
    for body in (b'{"username":"\xff"}', b"[" * 100_000):
        url = f"{scripted.url}/api/v1/auth/register"
        answers.append(httpx.post(url, content=body, headers={"Content-Type": "application/json"}))
    assert [answer.status_code for answer in answers if not 200 <= answer.status_code < 500] == []
    assert [answer.status_code for answer in answers[-2:]] == [400, 400]


def test_another_media_type_is_415(scripted_user: User) -> None:
    answer = scripted_user.http.post("/jobs", data={"title": "a"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_somebody_elses_file_cannot_be_ordered(scripted: Stack, scripted_user: User) -> None:
    file = scripted_user.http.post("/upload", files={"file": ("a.txt", b"mine")}).json()
    with User(scripted.url) as other:
        answer = other.http.post("/jobs", json={"filename": file["filename"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_job_over_the_limit_is_refused_before_it_is_read(scripted: Stack, scripted_user: User, rows: Rows) -> None:
    before = count(rows), objects(scripted)
    answer = scripted_user.http.post("/jobs", files={"file": ("big.bin", bytes(9 * 1024**2))})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")

    def chunks() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
        for _ in range(9):
            yield bytes(1024**2)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = scripted_user.http.post("/jobs", content=chunks(), headers=headers)
    except httpx.WriteError:
        pass  # the server has answered and closed while the rest was being sent
    else:
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert (count(rows), objects(scripted)) == before


def test_positions_in_a_stream_are_numbers(scripted_user: User) -> None:
    job = scripted_user.http.post("/jobs", json={}).json()
    for position in ("abc", "-1", "1.5", "9" * 30):
        answer = scripted_user.http.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": position})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_what_a_job_does_not_have_yet_is_409(scripted_user: User) -> None:
    job = scripted_user.http.post("/jobs", json={}).json()
    for path in ("/file", "/zip-info", "/zip-contents", "/results", "/results.xlsx"):
        answer = scripted_user.http.get(f"/jobs/{job['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_ready"), path


# ---------------------------------------------------------------- what would be ignored, or is not known


@pytest.mark.parametrize(
    ("method", "path", "content_type"),
    [
        ("POST", "/upload", "application/octet-stream"),
        ("PUT", "/upload", "text/plain"),
        ("POST", "/jobs", "application/json"),
        ("POST", "/jobs", "multipart/form-data; boundary=b"),
        ("POST", "/uploads", "application/offset+octet-stream"),
        ("POST", "/uploads/direct", "application/json"),
        ("POST", "/auth/login", "application/json"),
    ],
)
def test_a_packed_body_is_refused_and_not_taken_for_what_is_in_it(
    scripted: Stack, scripted_user: User, rows: Rows, method: str, path: str, content_type: str
) -> None:
    before = count(rows), objects(scripted)
    headers = {"Content-Type": content_type, "Content-Encoding": "gzip", "Tus-Resumable": "1.0.0"}
    answer = scripted_user.http.request(method, path, content=gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "content_encoding_unsupported")
    assert answer.json()["details"] == {"encoding": "gzip"}
    assert (count(rows), objects(scripted)) == before


def test_a_body_packed_on_its_way_is_refused(scripted: Stack, scripted_user: User, rows: Rows) -> None:
    before = count(rows), objects(scripted)
    headers = {
        "Authorization": scripted_user.http.headers["Authorization"],
        "Transfer-Encoding": "gzip, chunked",
        "Content-Type": "application/x-test",
    }
    url = urlsplit(scripted.url)
    with closing(http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)) as client:
        client.request("POST", "/api/v1/upload", iter([gzip.compress(b"{}")]), headers, encode_chunked=True)
        answer = client.getresponse()
        problem = json.loads(answer.read())
    assert (answer.status, problem["code"]) == (501, "transfer_coding_unsupported")
    assert "gzip, chunked" in problem["detail"]
    assert (count(rows), objects(scripted)) == before


def test_a_body_that_says_it_is_not_packed_is_taken(scripted_user: User) -> None:
    answer = scripted_user.http.post("/jobs", json={"title": "t"}, headers={"Content-Encoding": "identity"})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("BREW /api/v1/jobs HTTP/1.1", 501, "method_unknown"),
        ("PROPFIND /api/v1/jobs HTTP/1.1", 405, "method_not_allowed"),
        ("PROPFIND /nowhere HTTP/1.1", 404, "not_found"),
        ("GET /api/v1/jobs HTTP/9.9", 400, "malformed_request"),
        ("nonsense", 501, "method_unknown"),
    ],
)
def test_a_request_that_is_none_is_answered_with_a_problem(scripted: Stack, line: str, status: int, code: str) -> None:
    url = httpx.URL(scripted.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as client:
        client.sendall(f"{line}\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["code"] == code

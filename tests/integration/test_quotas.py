"""What one owner's files may take in all is decided in Postgres: however many uploads end at once."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from stack.up import Stack, running
from storage import objects
from storage.database import autocommit
from tests.client import User
from tests.own_settings import settings_of

KIB, MIB = 1024, 1024**2
BYTES, FILES = 1024 * KIB, 6
RAW = {"Content-Type": "application/x-test"}


@pytest.fixture(scope="module")
def api() -> Iterator[Stack]:
    env = {"OWNER_MAX_BYTES": str(BYTES), "OWNER_MAX_FILES": str(FILES), "DATABASE_POOL_SIZE": "16"}
    with running(only=["api"], env=env) as stack, settings_of({**stack.env, **env}):
        yield stack


@pytest.fixture
def user(api: Stack) -> Iterator[User]:
    with User(api.url) as user:
        yield user
    with autocommit() as connection:
        named = set(connection.execute(text("SELECT object_key FROM files")).scalars())
    assert set(objects.below("")) == named, "refused, and yet there"


def upload(user: User, size: int, how: str = "body") -> httpx.Response:
    data = os.urandom(size)
    match how:
        case "form":
            return user.http.post("/upload", files={"file": ("a", data)})
        case "unknown length":
            return user.http.post("/upload", content=iter([data]), headers=RAW)
        case "job":
            return user.http.post("/jobs", files={"file": ("a", data)})
        case "attached":
            job = user.http.post("/jobs", json={}).json()
            return user.http.put(f"/jobs/{job['id']}/file", content=data, headers=RAW)
    return user.http.post("/upload", content=data, headers=RAW)


def begin(user: User, size: int) -> httpx.Response:
    return user.http.post("/uploads/direct", json={"name": "a", "size": size})


def refused(answer: httpx.Response) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (413, "storage_quota_exceeded"), answer.text
    details: dict[str, Any] = answer.json()["details"]
    return details


WAYS = ["body", "form", "unknown length", "job", "attached"]


@pytest.mark.parametrize("how", WAYS)
def test_bytes_are_limited_by_every_way_and_free_again_when_deleted(user: User, how: str) -> None:
    first = upload(user, 1000 * KIB)
    assert first.status_code == 201, first.text
    wanted = refused(upload(user, 24 * KIB + 1, how))
    assert wanted == {"unit": "bytes", "limit": BYTES, "used": 1000 * KIB, "asked": 24 * KIB + 1}
    assert upload(user, 24 * KIB, how).status_code in (200, 201, 202), "to the last byte"
    refused(upload(user, 1, how))
    user.http.delete(f"/files/{first.json()['filename']}").raise_for_status()
    assert upload(user, 1000 * KIB, how).status_code in (200, 201, 202)


def test_files_are_limited(user: User) -> None:
    for _ in range(FILES):
        assert upload(user, 0).status_code == 201
    assert refused(upload(user, 0)) == {"unit": "files", "limit": FILES, "used": FILES, "asked": 1}
    refused(begin(user, 0))


@pytest.mark.parametrize("how", WAYS)
def test_uploads_that_end_at_once_do_not_pass_it_together(user: User, how: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: upload(user, 300 * KIB, how), range(12)))
    kept = [answer for answer in answers if answer.status_code < 300]
    assert len(kept) == 3
    for answer in answers:
        if answer not in kept:
            refused(answer)


def test_others_are_not_touched(api: Stack, user: User) -> None:
    assert upload(user, BYTES).status_code == 201
    with User(api.url) as other:
        assert upload(other, BYTES).status_code == 201


def test_uploads_straight_to_the_storage_count_from_their_beginning(user: User) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: begin(user, 400 * KIB), range(8)))
    begun = [answer.json() for answer in answers if answer.status_code == 201]
    assert len(begun) == 2
    assert refused(upload(user, 300 * KIB))["used"] == 800 * KIB
    user.http.delete(f"/uploads/direct/{begun[0]['id']}").raise_for_status()
    assert upload(user, 600 * KIB).status_code == 201
    httpx.put(begun[1]["parts"][0]["url"], content=bytes(400 * KIB)).raise_for_status()
    answer = user.http.post(f"/uploads/direct/{begun[1]['id']}/complete", json={})
    assert answer.status_code == 201, "its own room is not taken twice"
    refused(upload(user, 24 * KIB + 1))


def test_a_length_that_surely_exceeds_it_is_refused_before_the_body(user: User) -> None:
    assert upload(user, 1000 * KIB).status_code == 201
    url = httpx.URL(user.url)
    with socket.create_connection((url.host, url.port or 80), 10) as client:
        head = [
            "POST /api/v1/upload HTTP/1.1",
            "Host: x",
            f"Authorization: {user.http.headers['Authorization']}",
            "Content-Type: application/x-test",
            f"Content-Length: {100 * KIB}",
        ]
        client.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
        assert client.recv(20).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("how", ["body", "form"])
def test_of_a_length_that_is_not_said_no_more_is_taken_than_there_is_room_for(user: User, how: str) -> None:
    url, sent = httpx.URL(user.url), 0
    kind = "application/x-test" if how == "body" else "multipart/form-data; boundary=b"
    start = b"" if how == "body" else b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with socket.create_connection((url.host, url.port or 80), 20) as client:
        head = [
            "POST /api/v1/upload HTTP/1.1",
            "Host: x",
            f"Authorization: {user.http.headers['Authorization']}",
            f"Content-Type: {kind}",
            "Transfer-Encoding: chunked",
        ]
        client.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 60 * MIB and not select.select([client], [], [], 0)[0]:
                piece = start + bytes(256 * KIB)
                client.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                start, sent = b"", sent + 256 * KIB
        assert client.recv(20).startswith(b"HTTP/1.1 413")
    assert sent < 20 * MIB, "one part is read, and what is on its way"


def test_a_refusal_does_not_use_up_the_key(user: User) -> None:
    first = upload(user, 1000 * KIB).json()
    headers = RAW | {"Idempotency-Key": "one"}
    data = bytes(100 * KIB)
    refused(user.http.post("/upload", content=data, headers=headers))
    user.http.delete(f"/files/{first['filename']}").raise_for_status()
    assert user.http.post("/upload", content=data, headers=headers).status_code == 201


TUS = {"Tus-Resumable": "1.0.0"}


def resumable(user: User, **headers: str) -> httpx.Response:
    return user.http.post("/uploads", headers={**TUS, **headers})


def send(user: User, location: str, data: bytes, **headers: str) -> httpx.Response:
    said = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", **headers}
    return user.http.patch(f"{user.url}{location}", content=data, headers={**TUS, **said})


def test_resumable_uploads_count_from_their_beginning(user: User) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: resumable(user, **{"Upload-Length": str(400 * KIB)}), range(8)))
    begun = [answer.headers["Location"] for answer in answers if answer.status_code == 201]
    assert len(begun) == 2
    assert refused(upload(user, 300 * KIB))["used"] == 800 * KIB
    user.http.delete(f"{user.url}{begun[0]}", headers=TUS).raise_for_status()
    assert upload(user, 300 * KIB).status_code == 201
    assert send(user, begun[1], os.urandom(400 * KIB)).status_code == 204


def test_a_resumable_upload_of_unknown_length_is_judged_when_its_length_is_said(user: User) -> None:
    location = resumable(user, **{"Upload-Defer-Length": "1"}).headers["Location"]
    other = upload(user, 800 * KIB).json()
    content, length = os.urandom(300 * KIB), {"Upload-Length": str(300 * KIB)}
    assert refused(send(user, location, content, **length))["asked"] == 300 * KIB
    assert user.http.head(f"{user.url}{location}", headers=TUS).headers["Upload-Offset"] == "0"
    user.http.delete(f"/files/{other['filename']}").raise_for_status()
    assert send(user, location, content, **length).status_code == 204

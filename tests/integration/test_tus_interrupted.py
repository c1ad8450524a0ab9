"""Resumable uploads where something breaks off: the connection, the API, the process that makes the file, the store."""

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from sqlalchemy import text

from api.room import ROOM_BYTES
from stack.up import Stack, running
from storage import objects
from storage.database import autocommit
from tests.own_settings import settings_of
from tests.tus_client import OCTETS, TUS, Tus

MIB = 1024**2
LEASE = 3.0


@pytest.fixture(scope="module")
def failpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="module")
def stack(failpoints: Path) -> Iterator[Stack]:
    env = {"LEASE_SECONDS": str(LEASE), "UPLOAD_SWEEP_SECONDS": "0.5", "MILLRACE_FAILPOINTS": str(failpoints)}
    with running(env=env, only=["api", "worker", "beat"]) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


@contextmanager
def sending(tus: Tus, path: str, offset: int, announced: int) -> Iterator[socket.socket]:
    """A PATCH by hand that has taken the upload, and of which the body is still to be sent."""
    where = urlsplit(tus.url)
    said = {**TUS, "Host": where.netloc, "Authorization": tus.http.headers["Authorization"], "Content-Type": OCTETS}
    said |= {"Upload-Offset": str(offset), "Content-Length": str(announced)}
    with socket.create_connection((where.hostname, where.port), 10) as raw:
        lines = [f"PATCH {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
        raw.sendall("\r\n".join(lines).encode())
        eventually(lambda: _is_claimed(path))
        yield raw


def _is_claimed(path: str) -> bool:
    with autocommit() as connection:
        claim = text("SELECT claim IS NOT NULL FROM uploads WHERE id = :id")
        return bool(connection.execute(claim, {"id": path.rpartition("/")[2]}).scalar())


def eventually(what: Callable[[], Any], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return answer


def upload_of(path: str) -> Any:
    """The row."""
    with autocommit() as connection:
        return connection.execute(text("SELECT * FROM uploads WHERE id = :id"), {"id": path.rpartition("/")[2]}).one()


# ---------------------------------------------------------------- the connection


@pytest.mark.parametrize("sent", [1, 3 * MIB + 5, 11 * MIB])
def test_what_was_sent_before_the_connection_broke_is_kept_to_the_byte(tus: Tus, sent: int) -> None:
    content = os.urandom(12 * MIB)
    path = tus.create(len(content))
    with sending(tus, path, 0, len(content)) as raw:
        raw.sendall(content[:sent])
    began = time.monotonic()
    assert tus.offset(path) == sent
    assert time.monotonic() - began < LEASE, "HEAD waits for the broken request, not for its lease"
    assert tus.patch(path, sent, content[sent:]).status_code == 204
    assert tus.download(path) == content


def test_a_client_that_has_gone_without_a_word_does_not_hold_its_upload(tus: Tus) -> None:
    content = os.urandom(2 * MIB)
    path = tus.create(len(content))
    with sending(tus, path, 0, len(content)) as raw:  # stays open, as a connection does whose network is gone
        raw.sendall(content[:MIB])
        assert tus.patch(path, 0, content).status_code == 423
        assert tus.offset(path) == MIB
        assert tus.patch(path, MIB, content[MIB:]).status_code == 204
        assert b" 423 " in raw.recv(1000)
    assert tus.download(path) == content


def test_asking_for_the_offset_does_not_end_a_request_whose_bytes_come(tus: Tus) -> None:
    pieces, size = 12, 64 * 1024
    content = os.urandom(pieces * size)
    path = tus.create(len(content))
    with ThreadPoolExecutor(1) as pool, sending(tus, path, 0, len(content)) as raw:
        for start in range(0, len(content), size):
            raw.sendall(content[start : start + size])
            if start == 2 * size:
                asking = pool.submit(tus.head, path)
            time.sleep(0.2)  # a slow client: shorter than two heartbeats, for which whoever asks waits
        assert asking.result().status_code == 200
        assert b" 204 " in raw.recv(1000)
    assert tus.download(path) == content


def test_an_upload_can_be_ended_while_bytes_come(tus: Tus) -> None:
    path = tus.create(12 * MIB)
    with sending(tus, path, 0, 12 * MIB) as raw:
        raw.sendall(os.urandom(6 * MIB))
        eventually(lambda: tus.read(path)["offset"] == 5 * MIB)
        assert tus.http.delete(f"{tus.url}{path}", headers=TUS).status_code == 204
        assert b" 423 " in raw.recv(1000)
    assert tus.head(path).status_code == 404


def test_clients_that_stall_together_hold_no_more_memory_than_there_is_room_for(tus: Tus, stack: Stack) -> None:
    clients, first, size = 14, 4 * MIB, 5 * MIB + 3  # together 56 MiB are held, of 48
    content = os.urandom(size)
    api = psutil.Process(stack.processes["api"].pid)
    before = api.memory_info().rss
    paths = [tus.create(size) for _ in range(clients)]
    with ExitStack() as open_ones:
        raws = [open_ones.enter_context(sending(tus, path, 0, size)) for path in paths]
        for raw in raws:
            raw.sendall(content[:first])
        eventually(lambda: any(tus.read(path)["offset"] for path in paths))  # put into the store to make room
        grown = api.memory_info().rss - before
        for raw in raws:
            raw.sendall(content[first:])
        for raw in raws:
            assert b" 204 " in raw.recv(1000)
    assert grown < ROOM_BYTES + clients * MIB
    assert {tus.read(path)["file"]["sha256"] for path in paths} == {hashlib.sha256(content).hexdigest()}


# ---------------------------------------------------------------- processes


def test_the_api_killed_amid_a_patch(tus: Tus, stack: Stack) -> None:
    content = os.urandom(23 * MIB)
    path = tus.create(len(content), job="inference", filename="a.bin")
    with sending(tus, path, 0, len(content)) as raw:
        raw.sendall(content[: 17 * MIB])
        # held to a part: 15 MiB are kept, the 2 MiB after them were in the process's memory
        eventually(lambda: tus.read(path)["offset"] == 15 * MIB)
        stack.processes["api"].kill()
    eventually(lambda: _is_up(stack))
    offset = tus.offset(path)
    assert offset == 15 * MIB
    answer = tus.patch(path, offset, content[offset:])
    assert answer.status_code == 204, answer.text
    assert tus.download(path) == content
    assert [job["id"] for job in tus.http.get("/jobs").json()["items"]] == [answer.headers["Millrace-Job"]]


def _is_up(stack: Stack) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{stack.url}/health/ready").status_code == 200
    return False


@contextmanager
def dying_before_the_row(stack: Stack, failpoints: Path) -> Iterator[None]:
    """The request in the block ends with its process, when the object is whole and no row names it."""
    (failpoints / "order.stored").write_text("kill@1")
    with pytest.raises(httpx.TransportError):
        yield
    eventually((failpoints / "order.stored.fired").exists)
    (failpoints / "order.stored.fired").unlink()
    eventually(lambda: _is_up(stack))


@pytest.mark.parametrize("size", [3, 6 * MIB])
def test_a_whole_upload_gets_its_file_and_its_job_whoever_dies(
    tus: Tus, stack: Stack, failpoints: Path, size: int
) -> None:
    content = os.urandom(size)
    path = tus.create(size, job="inference", filename="a.bin")
    with dying_before_the_row(stack, failpoints):
        tus.patch(path, 0, content)
    upload = eventually(lambda: (one := tus.read(path))["state"] == "complete" and one)
    assert tus.download(path) == content
    (job,) = tus.http.get("/jobs").json()["items"]
    assert (job["id"], job["file"]) == (upload["job_id"], upload["file"])
    assert tus.offset(path) == size


def test_a_final_upload_is_made_though_its_maker_dies(tus: Tus, stack: Stack, failpoints: Path) -> None:
    contents = [os.urandom(6 * MIB), os.urandom(MIB)]
    paths = [tus.create(len(content), {"Upload-Concat": "partial"}) for content in contents]
    for path, content in zip(paths, contents, strict=True):
        assert tus.patch(path, 0, content).status_code == 204
    with dying_before_the_row(stack, failpoints):
        tus.post(headers={"Upload-Concat": "final;" + " ".join(paths)}, filename="whole.bin")
    (file,) = eventually(lambda: tus.http.get("/files").json()["items"])
    assert file["sha256"] == hashlib.sha256(b"".join(contents)).hexdigest()


# ---------------------------------------------------------------- the store


def test_a_store_that_has_lost_the_parts_makes_the_client_begin_anew(tus: Tus) -> None:
    content = os.urandom(12 * MIB)
    path = tus.create(len(content))
    assert tus.patch(path, 0, content[: 6 * MIB]).status_code == 204
    row = upload_of(path)
    objects.abort_multipart(row.object_key, row.multipart_id)
    answer = tus.patch(path, 6 * MIB, content[6 * MIB :])
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_offset_mismatch")
    assert tus.offset(path) == 0
    assert tus.patch(path, 0, content).status_code == 204
    assert tus.download(path) == content


def test_other_bytes_than_a_killed_process_had_sent(tus: Tus) -> None:
    content = os.urandom(12 * MIB)
    path = tus.create(len(content))
    assert tus.patch(path, 0, content[: 5 * MIB]).status_code == 204
    row = upload_of(path)
    objects.upload_part(row.object_key, row.multipart_id, 2, os.urandom(5 * MIB))
    answer = tus.patch(path, 5 * MIB, content[5 * MIB :])
    if answer.status_code != 204:  # a store that takes no other bytes for a part it has
        assert answer.status_code == 409
        assert tus.patch(path, tus.offset(path), content).status_code == 204
    assert tus.download(path) == content


def test_an_upload_that_expires_leaves_nothing(tus: Tus) -> None:
    path = tus.create(20 * MIB)
    assert tus.patch(path, 0, os.urandom(6 * MIB)).status_code == 204
    partial = tus.create(3, {"Upload-Concat": "partial"})
    assert tus.patch(partial, 0, b"abc").status_code == 204
    kept = tus.create(3)
    assert tus.patch(kept, 0, b"abc").status_code == 204
    begun, complete = upload_of(path), upload_of(partial)
    assert {begun.tail_key, complete.object_key} <= set(objects.below("inputs/"))
    assert (begun.object_key, begun.multipart_id) in objects.unfinished()
    ids = [one.rpartition("/")[2] for one in (path, partial, kept)]
    with autocommit() as connection:
        connection.execute(
            text("UPDATE uploads SET expires_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))"), {"ids": ids}
        )
    assert tus.head(path).status_code in (404, 410)
    eventually(lambda: [tus.head(one).status_code for one in (path, partial, kept)] == [404] * 3)
    eventually(lambda: {begun.tail_key, complete.object_key}.isdisjoint(objects.below("inputs/")))
    assert (begun.object_key, begun.multipart_id) not in objects.unfinished()
    (file,) = tus.http.get("/files").json()["items"]
    assert tus.http.get(f"/download/{file['filename']}").content == b"abc"

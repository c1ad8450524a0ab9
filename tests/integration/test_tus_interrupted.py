"""Resumable uploads whose connection breaks or falls silent, whose store forgets, whose time runs out."""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from api.room import ROOM_BYTES
from stack.up import Stack, running
from storage import objects
from storage.database import autocommit
from tests.own_settings import settings_of
from tests.tus_client import TUS, Tus, eventually, sending

MIB = 1024**2
LEASE = 3.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    env = {"LEASE_SECONDS": str(LEASE), "UPLOAD_SWEEP_SECONDS": "0.5"}
    with running(env=env, only=["api", "worker", "beat"]) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


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

"""Uploads that are too large, break off, or meet a store that does: refused by name, and nothing of them is kept."""

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from storage import objects
from storage.database import engine
from tests.api_process import ApiProcess, api_process
from tests.gate import Gate
from tests.uploading import FORM, LIMIT, MIB, User, answer_on, chunk, connection, form, refused


@pytest.mark.usefixtures("kept_nothing")
def test_an_announced_length_over_the_limit_is_refused_before_the_body(user: User) -> None:
    with connection(user, {**FORM, "Content-Length": str(LIMIT + 1)}) as client:
        answer = answer_on(client)  # not one byte of body was sent
    assert refused(answer, 413, "body_too_large")["details"] == {"limit": LIMIT}


def test_no_body_is_invited_that_will_be_refused(user: User) -> None:
    with connection(user, {**FORM, "Content-Length": str(LIMIT + 1), "Expect": "100-continue"}) as client:
        assert client.recv(20).startswith(b"HTTP/1.1 413")


@pytest.mark.usefixtures("kept_nothing")
@pytest.mark.parametrize("headers", [FORM, {"Content-Type": "application/octet-stream"}], ids=["form", "body"])
def test_a_body_of_unknown_length_is_refused_at_the_limit(user: User, headers: dict[str, str]) -> None:
    start = form(('name="file"; filename="a"', b""), end=b"")[:-2] if headers is FORM else b""
    with connection(user, {**headers, "Transfer-Encoding": "chunked"}) as client:
        client.sendall(chunk(start) if start else b"")
        for _ in range(LIMIT // MIB):
            client.sendall(chunk(bytes(MIB)))
        client.sendall(chunk(b"x"))  # no end: the answer must not wait for it
        refused(answer_on(client), 413, "body_too_large")


@pytest.mark.usefixtures("kept_nothing")
@pytest.mark.parametrize("sent", [100, 3 * MIB, 20 * MIB, 45 * MIB])
@pytest.mark.parametrize("how", ["form", "body", "unknown"])
def test_a_client_that_goes_away_leaves_nothing(user: User, sent: int, how: str) -> None:
    start = b"" if how == "body" else form(('name="file"; filename="a"', b""), end=b"")[:-2]
    length = {"Transfer-Encoding": "chunked"} if how == "unknown" else {"Content-Length": str(LIMIT)}
    kind = FORM if how != "body" else {"Content-Type": "application/octet-stream"}
    with connection(user, {**kind, **length}) as client:
        data = start + bytes(sent)
        client.sendall(chunk(data) if how == "unknown" else data)
        time.sleep(0.2)
    assert user("GET", "/files").status_code == 200


@pytest.mark.usefixtures("kept_nothing")
def test_a_shutdown_in_the_middle_of_an_upload_leaves_nothing(
    environ: dict[str, str], tmp_path: Path, user: User
) -> None:
    with (
        api_process(environ, tmp_path / "log", graceful_seconds=1) as api,
        connection(User(api), {"Content-Type": "application/zip", "Content-Length": str(LIMIT)}) as client,
    ):
        client.sendall(bytes(34 * MIB))
        deadline = time.monotonic() + 10
        while not objects.unfinished() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert objects.unfinished()
        api.process.send_signal(signal.SIGTERM)
        api.process.wait(15)


LARGE = form(('name="file"; filename="a"', bytes(44 * MIB)))


@pytest.mark.usefixtures("kept_nothing")
@pytest.mark.parametrize("after", [3000, 10 * MIB, 33 * MIB])
def test_a_store_that_breaks_off_is_503_and_nothing_is_kept(user: User, gate: Gate, after: int) -> None:
    gate.through, gate.shut_after, gate.opens_again = 0, after, True
    answer = user("POST", "/upload", FORM, content=LARGE)
    refused(answer, 503, "storage_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.usefixtures("kept_nothing")
@pytest.mark.parametrize("after", [0, 10 * MIB])
def test_a_store_that_goes_down_is_503_and_the_sweep_takes_what_it_has(user: User, gate: Gate, after: int) -> None:
    gate.through, gate.shut_after = 0, after
    if after == 0:
        gate.shut()
    refused(user("POST", "/upload", FORM, content=LARGE), 503, "storage_unavailable")
    gate.reopen()
    objects.sweep(timedelta(0))


def test_uploads_go_on_after_the_store_is_back(user: User, gate: Gate) -> None:
    gate.shut()
    refused(
        user("POST", "/upload", FORM, content=form(('name="file"; filename="a"', b"x"))), 503, "storage_unavailable"
    )
    gate.reopen()
    assert user.upload(b"again")["size"] == 5


@pytest.mark.usefixtures("kept_nothing")
def test_a_row_that_cannot_be_written_takes_its_object_with_it(user: User) -> None:
    with engine().begin() as database:
        database.execute(text("ALTER TABLE files RENAME TO hidden"))
    try:
        # an error nobody foresaw: 500 without internals
        answer = user("POST", "/upload", files={"file": ("a", b"x" * MIB)})
    finally:
        with engine().begin() as database:
            database.execute(text("ALTER TABLE hidden RENAME TO files"))
    refused(answer, 500, "internal_error")
    user.api.log.write_text("")  # its traceback is expected


def test_the_socket_is_not_read_faster_than_the_store_takes_it(user: User, gate: Gate) -> None:
    """Back-pressure: with a store that takes nothing, the client can only fill the buffers on the way."""
    stopped = threading.Event()
    copy = gate._copy

    def stuck(source: socket.socket, sink: socket.socket, towards: bool) -> None:
        if towards:
            stopped.wait(20)
        copy(source, sink, towards)

    gate.shut()
    gate._copy = stuck  # type: ignore[method-assign]
    gate.reopen()
    try:
        with connection(user, {"Content-Type": "application/x-test", "Content-Length": str(30 * MIB)}) as client:
            client.settimeout(1)
            taken = 0
            with suppress(TimeoutError):
                while taken < 30 * MIB:
                    taken += client.send(bytes(256 * 1024))
            assert taken < 24 * MIB
    finally:
        gate._copy = copy  # type: ignore[method-assign]
        stopped.set()


@pytest.mark.parametrize("unknown", [False, True], ids=["known length", "unknown length"])
def test_memory_stays_flat_with_eight_uploads_at_once(user: User, unknown: bool) -> None:
    process = psutil.Process(user.api.process.pid)
    piece = os.urandom(MIB)
    user.upload(piece)

    def one(_: int) -> int:
        pieces = (piece for _ in range(40))
        length = {} if unknown else {"Content-Length": str(40 * MIB)}
        answer = user("PUT", "/upload", {"Content-Type": "application/x-test", **length}, content=pieces)
        size: int = answer.json()["size"]
        objects.delete([f"inputs/{answer.json()['id']}"])
        return size

    idle = peak = process.memory_info().rss
    with ThreadPoolExecutor(8) as pool:
        sizes = [pool.submit(one, n) for n in range(8)]
        while not all(size.done() for size in sizes):
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)
    assert [size.result() for size in sizes] == [40 * MIB] * 8
    assert peak - idle < 64 * MIB


def test_errors_are_logged_without_presigned_urls(api: ApiProcess) -> None:
    assert "X-Amz-Signature" not in api.log.read_text()
    for line in api.log.read_text().splitlines():
        if line.startswith("{"):
            assert "url" not in json.loads(line)

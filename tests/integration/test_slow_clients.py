"""Clients that crawl or lie are cut off within seconds and leave nothing behind."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from litestar import Litestar

from domain.errors import BEGINNING_KEPT, NOTHING_KEPT
from storage import objects
from tests.api_process import ApiProcess
from tests.tus_client import OCTETS, TUS, digest
from tests.uploading import FORM, User, answer_on, app_with_echo, chunk, connection, form, refused, servers, sound_api

KIB = 1024
WINDOW = 2.0  # seconds, in place of twenty
RATE = 20 * KIB
RAW = {"Content-Type": "application/x-test"}
APP = f"{__name__}:app_with_a_short_window"


def app_with_a_short_window() -> Litestar:
    from api.uploads import body

    body.WINDOW_SECONDS = WINDOW
    return app_with_echo()


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    with servers(UPLOAD_MIN_BYTES_PER_SECOND=str(RATE)) as environ:
        yield environ


@pytest.fixture(scope="module")
def api(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    with sound_api(environ, tmp_path_factory.mktemp("api") / "log", APP) as api:
        yield api


@pytest.fixture
def user(api: ApiProcess) -> User:
    return User(api)


@pytest.fixture(autouse=True)
def nothing_left(api: ApiProcess) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while (objects.below(""), objects.unfinished()) != ([], []) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (objects.below(""), objects.unfinished()) == ([], [])


def dribble(client: socket.socket, piece: bytes, each: float, seconds: float) -> float:
    """Send pieces until the server has had enough; for how long it listened."""
    began = time.monotonic()
    with suppress(OSError):
        while time.monotonic() - began < seconds:
            client.sendall(piece)
            client.settimeout(each)
            with suppress(TimeoutError):
                if client.recv(1, socket.MSG_PEEK):
                    break
    client.settimeout(10)
    return time.monotonic() - began


HEAD = form(('name="file"; filename="a"', b""), end=b"")[:-2]


@pytest.mark.parametrize("how", ["form", "body", "large", "unknown length"])
@pytest.mark.parametrize("piece", [b"", b"x" * 512], ids=["silent", "a drop at a time"])
def test_a_client_that_crawls_is_cut_off(user: User, how: str, piece: bytes) -> None:
    sized = {"Transfer-Encoding": "chunked"} if how == "unknown length" else {"Content-Length": str(40 * 1024 * KIB)}
    sized = {"Content-Length": "100000"} if how == "body" else sized
    kind, start = (FORM, HEAD) if how == "form" else (RAW, b"x" * 100)
    unknown = how == "unknown length"
    with connection(user, {**kind, **sized}) as client:
        client.sendall(chunk(start) if unknown else start)
        listened = dribble(client, chunk(piece) if unknown and piece else piece, 0.1, 6 * WINDOW)
        answer = answer_on(client)
        problem = refused(answer, 408, "upload_too_slow")
        assert problem["retryable"]
        assert WINDOW * 0.9 < listened < 2.5 * WINDOW
        with suppress(ConnectionError):
            while client.recv(65536):
                pass  # and the connection is closed: recv ends


def resumable(user: User, length: int) -> str:
    answer = user("POST", "/uploads", {**TUS, "Upload-Length": str(length)})
    assert answer.status_code == 201, answer.text
    return f"/uploads/{answer.json()['id']}"


PATCH = {**TUS, "Upload-Offset": "0", "Content-Type": OCTETS}


@pytest.mark.parametrize("piece", [b"", b"x" * 512], ids=["silent", "a drop at a time"])
def test_of_a_resumable_upload_that_crawls_everything_is_kept(user: User, piece: bytes) -> None:
    path = resumable(user, 100_000)
    said = {**PATCH, "X-HTTP-Method-Override": "PATCH", "Content-Length": "100000"}
    with connection(user, said, path) as client:
        client.sendall(b"x" * 100)
        listened = dribble(client, piece, 0.1, 6 * WINDOW)
        problem = refused(answer_on(client), 408, "upload_too_slow")
    assert problem["details"]["kept"] == BEGINNING_KEPT
    assert WINDOW * 0.9 < listened < 2.5 * WINDOW
    offset = int(user("HEAD", path, TUS).headers["Upload-Offset"])
    assert offset >= 100 + len(piece) * 3
    rest = user("PATCH", path, {**PATCH, "Upload-Offset": str(offset)}, content=bytes(100_000 - offset))
    assert rest.status_code == 204, rest.text
    assert user("DELETE", f"/files/{rest.headers['Millrace-File']}").status_code == 204


def test_first_bytes_that_crawl_are_no_upload(user: User) -> None:
    said = {**TUS, "Content-Type": OCTETS, "Upload-Length": "100000", "Content-Length": "100000"}
    with connection(user, said, "/uploads") as client:
        client.sendall(b"x" * 100)
        problem = refused(answer_on(client), 408, "upload_too_slow")
    assert problem["details"]["kept"] == NOTHING_KEPT


def test_a_body_with_a_digest_that_crawls_is_not_kept(user: User) -> None:
    path = resumable(user, 100_000)
    said = {**PATCH, "X-HTTP-Method-Override": "PATCH", "Content-Length": "100000", "Content-Digest": digest(b"")}
    with connection(user, said, path) as client:
        client.sendall(b"x" * 100)
        problem = refused(answer_on(client), 408, "upload_too_slow")
    assert problem["details"]["kept"] == NOTHING_KEPT
    assert user("HEAD", path, TUS).headers["Upload-Offset"] == "0"
    assert user("DELETE", path, TUS).status_code == 204


def test_a_client_that_keeps_the_rate_is_not(user: User) -> None:
    data = b"x" * (8 * KIB)

    def steady() -> Iterator[bytes]:
        for _ in range(12):
            time.sleep(0.2)  # 40 KiB/s for some windows
            yield data

    answer = user("POST", "/upload", {**RAW, "Content-Length": str(12 * len(data))}, content=steady())
    assert answer.status_code == 201, answer.text
    assert user("DELETE", f"/files/{answer.json()['filename']}").status_code == 204


def test_a_client_that_promised_more_than_it_sends_is_cut_off(user: User) -> None:
    with connection(user, {**RAW, "Content-Length": str(40 * 1024 * KIB)}) as client:
        client.sendall(bytes(35 * 1024 * KIB))  # a part and a bit, then silence
        began = time.monotonic()
        refused(answer_on(client), 408, "upload_too_slow")
        assert time.monotonic() - began < 3 * WINDOW

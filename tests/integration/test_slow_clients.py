"""Clients that crawl, lie or vanish lose their place within seconds and leave nothing behind."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from litestar import Litestar

from domain.errors import BEGINNING_KEPT, NOTHING_KEPT
from migrations.__main__ import upgrade
from stack.up import running
from storage import objects
from tests.integration.test_uploads import FORM, Api, User, answer_on, app_with_echo, chunk, connection, form, refused
from tests.own_settings import settings_of
from tests.tus_client import OCTETS, TUS, digest

KIB = 1024
WINDOW = 1.0  # seconds, in place of twenty
RATE = 20 * KIB
RAW = {"Content-Type": "application/x-test"}
PLACES = 2


def app_with_a_short_window() -> Litestar:
    from api.uploads import body, places

    body.WINDOW_SECONDS = WINDOW
    places.HOLD_SECONDS = WINDOW
    return app_with_echo()


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    env = {"UPLOAD_MIN_BYTES_PER_SECOND": str(RATE), "OWNER_UPLOADS_AT_ONCE": str(PLACES)}
    with running(servers_only=True, env=env) as stack, settings_of({**stack.env, **env}):
        upgrade()
        objects.ensure_bucket()
        yield dict(os.environ)


@pytest.fixture(scope="module")
def api(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api = Api(environ, tmp_path_factory.mktemp("api") / "log", "test_slow_clients:app_with_a_short_window")
    yield api
    api.stop()
    assert "Traceback" not in api.log.read_text()


@pytest.fixture
def user(api: Api) -> User:
    return User(api)


@pytest.fixture(autouse=True)
def nothing_left(api: Api) -> Iterator[None]:
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


# ---------------------------------------------------------------- places


def occupy(user: User, places: ExitStack) -> socket.socket:
    client = places.enter_context(connection(user, {**RAW, "Content-Length": str(10**7)}))
    client.sendall(b"x" * 1000)
    return client


def one_more(user: User) -> int:
    answer = user("POST", "/upload", RAW, content=b"x")
    if answer.status_code == 429:
        assert answer.json()["code"] == "too_many_uploads"
        assert int(answer.headers["retry-after"]) >= 1
    else:
        user("DELETE", f"/files/{answer.json()['filename']}")
    return answer.status_code


def until(user: User, status: int, seconds: float) -> float:
    began = time.monotonic()
    while one_more(user) != status:
        assert time.monotonic() - began < seconds, f"no {status} within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def keep_on(stop: threading.Event, clients: list[socket.socket]) -> None:
    with suppress(OSError):
        while not stop.wait(0.1):
            for client in clients:
                client.sendall(b"x" * 4 * KIB)


def test_only_so_many_uploads_are_under_way_and_an_end_makes_room(api: Api, user: User) -> None:
    stop = threading.Event()
    with ExitStack() as places:
        clients = [occupy(user, places) for _ in range(PLACES)]
        thread = threading.Thread(target=keep_on, args=(stop, clients))
        thread.start()
        places.callback(thread.join)
        places.callback(stop.set)
        until(user, 429, 3)
        assert one_more(User(api)) == 201, "others have places of their own"
        time.sleep(2 * WINDOW)
        assert one_more(user) == 429, "a place is kept as long as the upload lasts"
        stop.set()
        thread.join()
        clients[0].close()  # aborted
        assert until(user, 201, 3) < 2


def test_resumable_uploads_take_places_too(api: Api, user: User) -> None:
    stop = threading.Event()
    paths = [resumable(user, 10**7) for _ in range(PLACES + 1)]
    said = {**PATCH, "X-HTTP-Method-Override": "PATCH", "Content-Length": str(10**7)}
    with ExitStack() as places:
        clients = [places.enter_context(connection(user, said, path)) for path in paths[:PLACES]]
        thread = threading.Thread(target=keep_on, args=(stop, clients))
        thread.start()
        places.callback(thread.join)
        places.callback(stop.set)
        until(user, 429, 3)
        answer = user("PATCH", paths[-1], PATCH, content=b"x")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")
        assert int(answer.headers["retry-after"]) >= 1
        others = User(api)
        assert others("PATCH", resumable(others, 1), PATCH, content=b"x").status_code == 204
        stop.set()
        thread.join()
        clients[0].close()
        assert until(user, 201, 3) < 2
    for path in paths:
        until_ended(user, path)
    for file in others("GET", "/files").json()["items"]:
        others("DELETE", f"/files/{file['filename']}")


def until_ended(user: User, path: str) -> None:
    deadline = time.monotonic() + 5
    while user("DELETE", path, TUS).status_code != 204:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_places_of_a_process_that_was_killed_are_free_soon(
    environ: dict[str, str], api: Api, tmp_path: Path
) -> None:
    doomed = Api(environ, tmp_path / "log", "test_slow_clients:app_with_a_short_window")
    user = User(doomed)
    with ExitStack() as places:
        for _ in range(PLACES):
            occupy(user, places)
        until(user, 429, 3)
        doomed.process.kill()
        doomed.process.wait(5)
    user.api = api  # the same account at another process
    assert until(user, 201, 3 * WINDOW) > 0

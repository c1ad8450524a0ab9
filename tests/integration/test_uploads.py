"""Uploads and downloads over real HTTP: a server process, a real S3 and a real Postgres behind it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from litestar import Litestar, Request, post
from sqlalchemy import text

from api.app import create_app
from api.uploads import receive
from migrations.__main__ import upgrade
from stack.up import running
from storage import objects
from storage.accounts import accounts
from storage.database import engine
from tests.own_settings import settings_of

MIB = 1024**2
LIMIT = 48 * MIB
NAME = "отчёт за июнь.zip"
ZIP = b"PK\x03\x04" + os.urandom(3000)


@post("/echo", request_max_body_size=None, status_code=201)
async def echo(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """What other handlers see of a form."""
    async with receive(request, LIMIT) as form:
        return {"fields": form.fields, "file": form.file and form.file.name}


def app_with_echo() -> Litestar:
    app = create_app()
    app.register(echo)
    return app


class Gate:
    """Stands between the API and the store, and can be shut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.through = 0  # bytes towards the store
        self.back = 0  # and from it
        self.shut_after: int | None = None
        self.opens_again = False
        self.open: list[socket.socket] = []
        self.copying: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self.listener.accept()
            except OSError:
                return
            if self.shut_after == 0:
                inner.close()
                continue
            outer = socket.create_connection(("127.0.0.1", self.target))
            self.open += [inner, outer]
            for words in ((inner, outer, True), (outer, inner, False)):
                copying = threading.Thread(target=self._copy, args=words, daemon=True)
                copying.start()
                self.copying.append(copying)

    def _copy(self, source: socket.socket, sink: socket.socket, towards: bool) -> None:
        try:
            while data := source.recv(MIB):
                self.through += len(data) if towards else 0
                self.back += 0 if towards else len(data)
                if self.shut_after is not None and self.through >= self.shut_after:
                    self.shut()
                    return
                sink.sendall(data)
        except OSError:
            pass
        for side in (source, sink):
            self._end(side)

    @staticmethod
    def _end(side: socket.socket) -> None:
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)  # close() alone leaves the thread that reads from it waiting
        side.close()

    def shut(self) -> None:
        self.shut_after = None if self.opens_again else 0
        for side in self.open:
            self._end(side)
        self.open.clear()

    def reopen(self) -> None:
        self.shut_after, self.opens_again, self.through, self.back = None, False, 0, 0


class Api:
    """The API as a process of its own."""

    def __init__(self, environ: dict[str, str], log: Path, factory: str = "test_uploads:app_with_echo") -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = unused.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        self.log = log
        words = ["-m", "uvicorn", "--factory", factory, "--port", str(self.port)]
        words += ["--loop", "uvloop", "--http", "httptools", "--timeout-graceful-shutdown", "1", "--no-access-log"]
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", *words],
                env=environ | {"PYTHONPATH": str(Path(__file__).parent)},
                stdout=sink,
                stderr=sink,
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"the API did not start:\n{log.read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(15)


class User:
    def __init__(self, api: Api) -> None:
        login = {"username": f"u.{uuid4().hex[:12]}", "password": "correct horse battery"}
        made = httpx.post(f"{api.url}/auth/register", json=login)
        assert made.status_code == 201, made.text
        self.id = made.json()["id"]
        self.api = api
        self.headers = {
            "Authorization": "Bearer " + httpx.post(f"{api.url}/auth/login", json=login).json()["access_token"]
        }

    def __call__(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        return httpx.request(
            method, f"{self.api.url}{path}", headers={**self.headers, **(headers or {})}, timeout=60, **more
        )

    def upload(self, data: bytes = ZIP, name: str = NAME) -> dict[str, Any]:
        answer = self("POST", "/upload", files={"file": (name, data)})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    with running(servers_only=True, env={"MAX_UPLOAD_BYTES": str(LIMIT)}) as stack:
        public = stack.env["S3_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
        with settings_of({**stack.env, "MAX_UPLOAD_BYTES": str(LIMIT), "S3_PUBLIC_ENDPOINT_URL": public}):
            upgrade()
            objects.ensure_bucket()
            yield dict(os.environ)


@pytest.fixture(scope="module")
def gate(environ: dict[str, str]) -> Iterator[Gate]:
    gate = Gate(httpx.URL(environ["S3_ENDPOINT_URL"]).port or 0)
    yield gate
    gate.listener.close()
    gate.shut()
    for copying in gate.copying:
        copying.join(5)


@pytest.fixture(scope="module")
def api(environ: dict[str, str], gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    log = tmp_path_factory.mktemp("api") / "log"
    api = Api(environ | {"S3_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}"}, log)
    yield api
    api.stop()
    assert "Warning" not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def user(api: Api) -> User:
    return User(api)


@pytest.fixture(scope="module")
def stranger(api: Api) -> User:
    return User(api)


@pytest.fixture
def kept_nothing(gate: Gate) -> Iterator[None]:
    """After the test there is no object and no unfinished upload that was not there before."""
    before = objects.below("inputs/")
    yield
    gate.reopen()
    deadline = time.monotonic() + 10
    while (objects.below("inputs/"), objects.unfinished()) != (before, []) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (objects.below("inputs/"), objects.unfinished()) == (before, [])


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def form(*parts: tuple[str, bytes], end: bytes = b"--xyz--\r\n") -> bytes:
    """A form of (Content-Disposition options, value), with the boundary xyz."""
    return (
        b"".join(
            b"--xyz\r\nContent-Disposition: form-data; " + head.encode("latin-1") + b"\r\n\r\n" + value + b"\r\n"
            for head, value in parts
        )
        + end
    )


FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}


@contextmanager
def connection(user: User, headers: dict[str, str], path: str = "/upload") -> Iterator[socket.socket]:
    """A request that has sent its head."""
    lines = [f"POST /api/v1{path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in {**user.headers, **headers}.items())]
    with socket.create_connection(("127.0.0.1", user.api.port), 20) as client:
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        yield client


def answer_on(client: socket.socket) -> httpx.Response:
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65536)
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
    while len(body) < length:
        body += client.recv(65536)
    return httpx.Response(int(lines[0].split()[1]), content=body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---------------------------------------------------------------- what arrives is what was sent


def test_an_upload_answers_the_file_and_stores_its_bytes(user: User) -> None:
    answer = user("POST", "/upload", files={"file": (NAME, ZIP, "application/octet-stream")})
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert file["name"] == NAME
    assert file["filename"] == f"{file['id']}.zip"
    assert (file["size"], file["sha256"]) == (len(ZIP), hashlib.sha256(ZIP).hexdigest())
    assert (file["type"], file["content_type"]) == ("zip", "application/zip")
    assert answer.headers["location"] == f"/api/v1/download/{file['filename']}"
    assert set(file) == {"id", "filename", "name", "size", "content_type", "sha256", "type", "created_at"}
    assert objects.read(f"inputs/{file['id']}", LIMIT) == ZIP


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB + 200_000, 32 * MIB, 40 * MIB + 7])
@pytest.mark.parametrize("how", ["form", "body", "form of unknown length", "body of unknown length"])
def test_every_size_arrives_whole_by_every_way(user: User, size: int, how: str) -> None:
    data = os.urandom(size)
    body = form(('name="before"', b"1"), ('name="file"; filename="a.bin"', data), ('name="after"', b"2"))
    headers, sent = (FORM, body) if how.startswith("form") else ({"Content-Type": "application/octet-stream"}, data)
    pieces = (sent[at : at + 100_003] for at in range(0, len(sent), 100_003)) if "unknown" in how else sent
    answer = user("POST", "/upload", headers, content=pieces)
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert (file["size"], file["sha256"]) == (size, hashlib.sha256(data).hexdigest())
    assert objects.read(f"inputs/{file['id']}", LIMIT) == data
    assert objects.unfinished() == []
    objects.delete([f"inputs/{file['id']}"])


def test_a_body_that_looks_like_its_boundary_arrives_whole(user: User) -> None:
    data = (b"\r\n--xy" + b"\r\n--xyy\r\n" + b"\r\n-\r" + b"--xyz") * 20_000
    answer = user("POST", "/upload", FORM, content=form(('name="file"; filename="a"', data)))
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 3 * MIB])
@pytest.mark.parametrize(
    ("after", "end"),
    [
        ((), b"--xyz--\r\n"),
        ((), b"--xyz--"),
        ((), b"--xyz--\r\n\r\n"),
        ((), b"--xyz--\r\n" + b"epilogue " * 5000),
        ((('name="after"', b"2"),), b"--xyz--\r\n"),
        ((('name="after"', b"\n" * 60_000),), b"--xyz--"),
    ],
    ids=["as always", "no line break", "two", "epilogue", "a field", "a long field"],
)
def test_a_small_file_is_exact_whatever_the_form_holds_after_it(
    user: User, size: int, after: tuple[tuple[str, bytes], ...], end: bytes
) -> None:
    data = os.urandom(size)
    before = ('name="before"', b"\n\r\n" * 1000 + b"\r")
    body = form(before, ('name="file"; filename="a.bin"', data), *after, end=end)
    for pieces in (body, [body[:3020], body[3020:3080], body[3080:]], [body[:-1], body[-1:]]):
        length = {"Content-Length": str(len(body))}
        answer = user("POST", "/upload", FORM | length, content=pieces if isinstance(pieces, bytes) else iter(pieces))
        assert answer.status_code == 201, answer.text
        file = answer.json()
        assert (file["size"], file["sha256"]) == (size, hashlib.sha256(data).hexdigest())
        assert objects.read(f"inputs/{file['id']}", LIMIT) == data
        objects.delete([f"inputs/{file['id']}"])


def test_a_file_after_one_that_was_not_chosen_arrives_whole(user: User) -> None:
    data = os.urandom(2 * MIB)
    body = form(('name="other"; filename=""', b""), ('name="file"; filename="a.bin"', data))
    assert user("POST", "/upload", FORM, content=body).json()["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_raw_body_is_named_by_header_or_query(user: User, method: str) -> None:
    header = {"Content-Disposition": "attachment; filename*=UTF-8''%D0%BE%D1%82.zip", "Content-Type": "application/zip"}
    assert user(method, "/upload", header, content=ZIP).json()["name"] == "от.zip"
    plain = {"Content-Type": "text/plain"}
    assert user(method, "/upload?name=%D0%BE%D1%82.txt", plain, content=b"x").json()["name"] == "от.txt"
    assert user(method, "/upload", plain, content=b"x").json()["name"] == "file"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (NAME.encode(), NAME),
        (NAME.encode("cp1251"), NAME),
        (NAME.encode().decode("latin-1").encode(), NAME),
        (b"../../etc/passwd", "passwd"),
        (b"\xff\x98.bin", "\ufffd\ufffd.bin"),
        (b"x" * 300 + b".zip", "x" * 251 + ".zip"),
    ],
)
def test_a_name_survives_the_way(user: User, raw: bytes, name: str) -> None:
    head = (b'name="file"; filename="' + raw + b'"').decode("latin-1")
    assert user("POST", "/upload", FORM, content=form((head, b"x"))).json()["name"] == name


# ---------------------------------------------------------------- fields


def test_fields_come_before_and_after_the_file(user: User) -> None:
    body = form(
        ('name="title"', "Снимки".encode()),
        ('name="file"; filename="a"', b"x" * 6 * MIB),
        ('name="threshold"', b"0.5"),
        ('name="empty"', b""),
    )
    answer = user_echo(user, FORM, body)
    assert answer.json() == {"fields": {"title": "Снимки", "threshold": "0.5", "empty": ""}, "file": "a"}


def test_a_form_may_have_no_file(user: User) -> None:
    assert user_echo(user, FORM, form(('name="title"', b"t"))).json() == {"fields": {"title": "t"}, "file": None}
    # what a browser sends where none was chosen
    body = form(('name="file"; filename=""', b""), ('name="title"', b"t"))
    assert user_echo(user, FORM, body).json() == {"fields": {"title": "t"}, "file": None}
    assert refused(user("POST", "/upload", FORM, content=body), 422, "invalid")["field"] == "file"


@pytest.mark.usefixtures("kept_nothing")
@pytest.mark.parametrize(
    "parts",
    [
        [('name="a"; filename="a"', b"1"), ('name="b"; filename="b"', b"2")],
        [('name="file"; filename="a"', b"1" * 6 * MIB), ('name="b"; filename="b"', b"2" * MIB)],
        [('name="t"', b"1"), ('name="t"', b"2")],
        [('name="file"; filename="a"', b"1"), ('name="t"', b"\0")],
        [('name="file"; filename="a"', b"1"), *((f'name="t{n}"', b"") for n in range(17))],
        [('name="file"; filename="a"', b"1"), ('name="t"', b"x" * 65_537)],
        [('name="file"; filename="a"', b"1" * 6 * MIB), ('name="t"', b"x" * 200_000)],
        [('name="t"', b"x" * 30_000), ('name="u"', b"x" * 40_000), ('name="file"; filename="a"', b"1")],
        [('filename="a"\r\nContent-Length: 7', b"1")],
    ],
    ids=["two", "two large", "twice", "NUL", "too many", "too long", "after a large one", "in all", "wrong length"],
)
def test_a_form_that_breaks_the_rules_leaves_nothing(user: User, parts: list[tuple[str, bytes]]) -> None:
    refused(user_echo(user, FORM, form(*parts)), 400, "malformed_request")


@pytest.mark.usefixtures("kept_nothing")
def test_a_form_without_boundary_or_end_is_malformed(user: User) -> None:
    whole = form(('name="file"; filename="a"', b"x" * 6 * MIB))
    refused(user("POST", "/upload", {"Content-Type": "multipart/form-data"}, content=whole), 400, "malformed_request")
    cut = form(('name="file"; filename="a"', b"x" * 6 * MIB), end=b"")
    refused(user("POST", "/upload", FORM, content=cut), 400, "malformed_request")
    refused(user("POST", "/upload", FORM, content=b"junk" * 50_000), 400, "malformed_request")
    refused(user("POST", "/upload", FORM, content=b""), 400, "malformed_request")
    padded = form(('name="file"; filename="a"', b"x")) + b"x" * 200_000
    refused(user("POST", "/upload", FORM, content=padded), 400, "malformed_request")


@pytest.mark.usefixtures("kept_nothing")
def test_what_the_handler_does_not_keep_is_deleted(user: User) -> None:
    assert user_echo(user, FORM, form(('name="file"; filename="a"', b"x"))).json()["file"] == "a"


def test_only_forms_are_taken_where_a_form_is_needed(user: User) -> None:
    refused(user_echo(user, {"Content-Type": "text/plain"}, b"x"), 415, "unsupported_media_type")


def user_echo(user: User, headers: dict[str, str], body: bytes) -> httpx.Response:
    url = user.api.url.replace("/api/v1", "/echo")
    return httpx.post(url, headers={**user.headers, **headers}, content=body, timeout=60)


# ---------------------------------------------------------------- limits and interruptions


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
    api = Api(environ, tmp_path / "log")
    other = User(api)
    with connection(other, {"Content-Type": "application/zip", "Content-Length": str(LIMIT)}) as client:
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


# ---------------------------------------------------------------- downloads

DATA = os.urandom(3 * MIB + 11)


@pytest.fixture(scope="module")
def file(user: User) -> dict[str, Any]:
    return user.upload(DATA, NAME)


def test_a_download_is_the_file_as_an_attachment_under_its_name(user: User, file: dict[str, Any]) -> None:
    answer = user("GET", f"/download/{file['filename']}")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82" in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"] == f'"{file["sha256"]}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == file["content_type"]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        (f"bytes=100-{len(DATA) + 5}", 100, len(DATA)),
        ("bytes=-99999999999", 0, len(DATA)),
        (f"bytes=1-{2 * MIB}", 1, 2 * MIB + 1),
    ],
)
def test_a_range_is_that_part(user: User, file: dict[str, Any], asked: str, start: int, end: int) -> None:
    answer = user("GET", f"/download/{file['filename']}", {"Range": asked})
    assert (answer.status_code, answer.content) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=9-5", "lines=1-2", "bytes=", "bytes=-", "bytes=x-", ""])
def test_a_range_that_need_not_be_honoured_gives_the_whole(user: User, file: dict[str, Any], asked: str) -> None:
    answer = user("GET", f"/download/{file['filename']}", {"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=-0", "bytes=99999999999-99999999999"])
def test_a_range_behind_the_end_is_416(user: User, file: dict[str, Any], asked: str) -> None:
    answer = user("GET", f"/download/{file['filename']}", {"Range": asked})
    refused(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_conditions_are_honoured(user: User, file: dict[str, Any]) -> None:
    path, tag = f"/download/{file['filename']}", f'"{file["sha256"]}"'
    for match in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = user("GET", path, {"If-None-Match": match})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert user("GET", path, {"If-None-Match": '"x"', "Range": "bytes=0-1"}).status_code == 206
    assert user("GET", path, {"If-Range": tag, "Range": "bytes=0-1"}).status_code == 206
    assert user("GET", path, {"If-Range": '"x"', "Range": "bytes=0-1"}).status_code == 200
    assert user("GET", path, {"If-Range": "Sat, 21 Nov 2026 14:00:00 GMT", "Range": "bytes=0-1"}).status_code == 200


def test_a_head_says_the_same_and_reads_nothing(user: User, file: dict[str, Any], gate: Gate) -> None:
    through = gate.through
    answer = user("HEAD", f"/download/{file['filename']}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(DATA)
    assert answer.headers["etag"] == f'"{file["sha256"]}"'
    assert answer.headers["content-type"] == file["content_type"]
    for part in ("bytes=0-1", "bytes=-2", f"bytes={len(DATA)}-"):  # a range is of a GET alone: RFC 9110 14.2
        ranged = user("HEAD", f"/download/{file['filename']}", {"Range": part})
        assert (ranged.status_code, int(ranged.headers["content-length"])) == (200, len(DATA))
        assert "content-range" not in ranged.headers
    assert gate.through == through


def test_an_empty_file_downloads(user: User) -> None:
    made = user.upload(b"", "empty.txt")
    answer = user("GET", f"/download/{made['filename']}")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    refused(user("GET", f"/download/{made['filename']}", {"Range": "bytes=0-"}), 416, "range_not_satisfiable")


def test_a_download_of_a_lost_object_or_a_lost_store_says_so(user: User, gate: Gate) -> None:
    made = user.upload(b"soon gone")
    gate.shut()
    refused(user("GET", f"/download/{made['filename']}"), 503, "storage_unavailable")
    gate.reopen()
    objects.delete([f"inputs/{made['id']}"])
    refused(user("GET", f"/download/{made['filename']}"), 410, "object_missing")


def test_a_download_that_breaks_off_is_not_taken_for_the_whole(user: User, gate: Gate) -> None:
    made = user.upload(os.urandom(40 * MIB), "large")
    url = f"{user.api.url}/download/{made['filename']}"
    with httpx.stream("GET", url, headers=user.headers, timeout=20) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        next(pieces)
        gate.shut()
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    gate.reopen()
    user.api.log.write_text("")  # the break is logged with its cause


def test_a_download_left_by_its_client_is_not_read_on(user: User, gate: Gate) -> None:
    made = user.upload(bytes(40 * MIB), "large")
    gate.back = 0
    with httpx.stream("GET", f"{user.api.url}/download/{made['filename']}", headers=user.headers) as answer:
        next(answer.iter_raw())
        time.sleep(0.5)
        assert gate.back < 30 * MIB  # nor is it read faster than the client reads
    time.sleep(1)
    assert gate.back < 30 * MIB


# ---------------------------------------------------------------- the list, URLs, deletion, owners


def test_the_list_is_ones_own_newest_first_in_pages(api: Api) -> None:
    user = User(api)
    names = [f"Файл {n} 100%.txt" for n in range(5)]
    for name in names:
        user.upload(b"x", name)
    seen: list[str] = []
    after: str | None = None
    while True:
        page = user("GET", "/files", params={"limit": 2, **({"after": after} if after else {})}).json()
        seen += [item["name"] for item in page["items"]]
        assert len(page["items"]) <= 2
        if (after := page["next"]) is None:
            break
    assert seen == names[::-1]
    assert [i["name"] for i in user("GET", "/files", params={"name": "файл 3"}).json()["items"]] == [names[3]]
    assert len(user("GET", "/files", params={"name": "100%"}).json()["items"]) == 5
    assert user("GET", "/files", params={"name": "1_0"}).json()["items"] == []
    assert user("GET", "/files", params={"name": "\0"}).json()["items"] == []
    for wrong in ({"limit": 0}, {"limit": 101}, {"after": "x"}):
        refused(user("GET", "/files", params=wrong), 422, "invalid")


def test_a_presigned_url_reads_the_file_from_the_public_address(user: User, file: dict[str, Any]) -> None:
    answer = user("GET", f"/files/{file['filename']}/url").json()
    assert httpx.URL(answer["url"]).host == "localhost"
    assert httpx.get(answer["url"]).content == DATA
    assert answer["expires_at"].endswith("Z")


def test_another_owners_file_is_not_there(stranger: User, file: dict[str, Any]) -> None:
    for method, path in (
        ("GET", f"/download/{file['filename']}"),
        ("HEAD", f"/download/{file['filename']}"),
        ("GET", f"/files/{file['filename']}/url"),
        ("DELETE", f"/files/{file['filename']}"),
    ):
        assert stranger(method, path).status_code == 404
    assert stranger("GET", "/files").json()["items"] == []


def test_an_admin_sees_any_file(api: Api, file: dict[str, Any]) -> None:
    admin = User(api)
    with engine().begin() as database:
        database.execute(accounts.update().where(accounts.c.id == admin.id).values(role="admin"))
    time.sleep(5.5)  # how long an account may pass for what it was
    assert admin("GET", f"/download/{file['filename']}").content == DATA


def test_a_deleted_file_is_gone_with_its_object(user: User) -> None:
    made = user.upload(b"x")
    assert user("DELETE", f"/files/{made['filename']}").status_code == 204
    assert f"inputs/{made['id']}" not in objects.below("inputs/")
    for method in ("GET", "DELETE"):
        path = f"/{'download' if method == 'GET' else 'files'}/{made['filename']}"
        refused(user(method, path), 404, "not_found")


def test_a_file_a_job_names_is_not_deleted(user: User) -> None:
    made = user.upload(b"needed")
    with engine().begin() as database:
        database.execute(text("CREATE TABLE naming (file_id uuid REFERENCES files (id) ON DELETE RESTRICT)"))
        database.execute(text("INSERT INTO naming VALUES (:id)"), {"id": made["id"]})
    refused(user("DELETE", f"/files/{made['filename']}"), 409, "file_in_use")
    assert objects.read(f"inputs/{made['id']}", 10) == b"needed"
    with engine().begin() as database:
        database.execute(text("DROP TABLE naming"))
    assert user("DELETE", f"/files/{made['filename']}").status_code == 204


def test_nobody_uploads_without_a_token(api: Api) -> None:
    nobody: Callable[..., httpx.Response] = httpx.request
    for method, path in (("POST", "/upload"), ("PUT", "/upload"), ("GET", "/files"), ("GET", "/download/x")):
        refused(nobody(method, f"{api.url}{path}"), 401, "not_authenticated")


def test_errors_are_logged_without_presigned_urls(api: Api) -> None:
    assert "X-Amz-Signature" not in api.log.read_text()
    for line in api.log.read_text().splitlines():
        if line.startswith("{"):
            assert "url" not in json.loads(line)

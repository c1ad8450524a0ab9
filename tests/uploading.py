"""Uploads to an API of a test's own, as whole requests or byte by byte over a socket."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from litestar import Litestar, Request, post

from api.app import create_app
from api.uploads import receive
from migrations.__main__ import upgrade
from stack.up import running
from storage import objects
from tests.api_process import APP, ApiProcess, api_process
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


@contextmanager
def servers(**settings: str) -> Iterator[dict[str, str]]:
    """Servers alone, to which this process's settings point: the environment for API processes of a test's own."""
    with running(servers_only=True, env=settings) as stack, settings_of({**stack.env, **settings}):
        upgrade()
        objects.ensure_bucket()
        yield dict(os.environ)


@contextmanager
def sound_api(environ: dict[str, str], log: Path, app: str = APP) -> Iterator[ApiProcess]:
    """An API that cuts short what is under way when it is stopped, and has logged no error by its end."""
    with api_process(environ, log, app=app, graceful_seconds=1) as api:
        yield api
    assert "Traceback" not in log.read_text()


class User:
    """A registered account at an API of a test's own; ``api`` may be changed for another one on the same servers."""

    def __init__(self, api: ApiProcess) -> None:
        self.api = api
        login = {"username": f"u.{uuid4().hex[:12]}", "password": "correct horse battery"}
        made = httpx.post(f"{self.url}/auth/register", json=login)
        assert made.status_code == 201, made.text
        self.id = made.json()["id"]
        self.headers = {
            "Authorization": "Bearer " + httpx.post(f"{self.url}/auth/login", json=login).json()["access_token"]
        }

    @property
    def url(self) -> str:
        return f"{self.api.url}/api/v1"

    def __call__(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        return httpx.request(
            method, f"{self.url}{path}", headers={**self.headers, **(headers or {})}, timeout=60, **more
        )

    def upload(self, data: bytes = ZIP, name: str = NAME) -> dict[str, Any]:
        answer = self("POST", "/upload", files={"file": (name, data)})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


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


def user_echo(user: User, headers: dict[str, str], body: bytes) -> httpx.Response:
    url = f"{user.api.url}/echo"
    return httpx.post(url, headers={**user.headers, **headers}, content=body, timeout=60)

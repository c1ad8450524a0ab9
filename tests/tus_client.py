"""A client of tus 1.0.0 that speaks the protocol by hand, so that a test says every header itself."""

import hashlib
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy import text

from storage.database import autocommit
from tests.client import User

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = "application/offset+octet-stream"
TUS_LIMIT = 64 * 1024**2  # of the stack that the tests of the verbs share


class Tus(User):
    """A registered account with its uploads, each known by the path it was given."""

    def create(self, length: int | None = None, headers: dict[str, str] | None = None, **metadata: str) -> str:
        """The path of a new upload."""
        answer = self.post(length, headers, **metadata)
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"]

    def post(
        self, length: int | None = None, headers: dict[str, str] | None = None, content: bytes = b"", **metadata: str
    ) -> httpx.Response:
        said = {"Upload-Length": str(length)} if length is not None else {}
        if metadata:
            said["Upload-Metadata"] = meta(**metadata)
        return self.http.post("/uploads", headers={**TUS, **said, **(headers or {})}, content=content)

    def patch(self, path: str, offset: int, content: Any, **headers: str) -> httpx.Response:
        said = {**TUS, "Upload-Offset": str(offset), "Content-Type": OCTETS}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.patch(f"{self.url}{path}", headers=said, content=content)

    def head(self, path: str) -> httpx.Response:
        return self.http.head(f"{self.url}{path}", headers=TUS)

    def offset(self, path: str) -> int:
        answer = self.head(path)
        assert answer.status_code == 200
        return int(answer.headers["Upload-Offset"])

    def read(self, path: str) -> dict[str, Any]:
        upload: dict[str, Any] = self.http.get(f"{self.url}{path}").raise_for_status().json()
        return upload

    def download(self, path: str) -> bytes:
        """The file that came of the upload, whose SHA-256 is true."""
        file = self.read(path)["file"]
        content = self.http.get(f"/download/{file['filename']}").raise_for_status().content
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["size"] == len(content)
        return content


def meta(**values: str) -> str:
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in values.items())


def checksum(algorithm: str, content: bytes) -> str:
    return f"{algorithm} {b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def digest(content: bytes, algorithm: str = "sha256") -> str:
    """The value of a field of RFC 9530."""
    value = b64encode(hashlib.new(algorithm, content).digest()).decode()
    return f"sha-{algorithm.removeprefix('sha')}=:{value}:"


def code(answer: httpx.Response) -> tuple[int, str]:
    """Of a refusal: its status and its code."""
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    return answer.status_code, answer.json()["code"]


def partial(tus: Tus, content: bytes) -> str:
    """The path of a complete partial upload."""
    path = tus.create(len(content), {"Upload-Concat": "partial"})
    if content:
        assert tus.patch(path, 0, content).status_code == 204
    assert tus.head(path).headers["Upload-Concat"] == "partial"
    return path


@contextmanager
def sending(tus: Tus, path: str, offset: int, announced: int) -> Iterator[socket.socket]:
    """A PATCH that has taken the upload, and of which the body is still to be sent.

    Looks into the database: this process's settings must be those of the stack.
    """
    where = urlsplit(tus.url)
    said = {**TUS, "Host": where.netloc, "Authorization": tus.http.headers["Authorization"], "Content-Type": OCTETS}
    said |= {"Upload-Offset": str(offset), "Content-Length": str(announced)}
    with socket.create_connection((where.hostname, where.port), 60) as raw:
        lines = [f"PATCH {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
        raw.sendall("\r\n".join(lines).encode())
        eventually(lambda: _is_claimed(path))
        yield raw


def _is_claimed(path: str) -> bool:
    with autocommit() as connection:
        claim = text("SELECT claim IS NOT NULL FROM uploads WHERE id = :id")
        return bool(connection.execute(claim, {"id": path.rpartition("/")[2]}).scalar())


def eventually(what: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return answer

"""Resumable uploads by tus 1.0.0, verb by verb: headers and status codes of the protocol, and what comes of them."""

import hashlib
import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from stack.up import Stack, running
from tests.client import User
from tests.own_settings import settings_of

MIB = 1024**2
LIMIT = 64 * MIB
TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = "application/offset+octet-stream"


class Tus(User):
    """A client that speaks the protocol by hand."""

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


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    env = {"MAX_UPLOAD_BYTES": str(LIMIT), "LEASE_SECONDS": "3", "UPLOAD_SWEEP_SECONDS": "0.5"}
    with running(env=env, only=["api", "worker", "sweeper", "beat", "ml"]) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


# ---------------------------------------------------------------- the core


def test_options_say_what_the_server_can_do_to_anybody(stack: Stack) -> None:
    for path in ("/uploads", f"/uploads/{uuid4()}"):
        answer = httpx.options(f"{stack.url}/api/v1{path}")
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert answer.headers["Tus-Max-Size"] == str(LIMIT)
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,md5"
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            "creation", "creation-with-upload", "creation-defer-length", "checksum", "termination", "expiration",
            "concatenation",
        }  # fmt: skip


@pytest.mark.parametrize("size", [1, 3 * MIB, 5 * MIB, 12 * MIB + 7])
def test_an_upload_in_one_request(tus: Tus, size: int) -> None:
    content = os.urandom(size)
    path = tus.create(size, filename="отчёт.bin", filetype="application/x-report")
    assert tus.offset(path) == 0
    answer = tus.patch(path, 0, content)
    assert answer.status_code == 204, answer.text
    assert answer.headers["Upload-Offset"] == str(size)
    upload = tus.read(path)
    assert upload["state"] == "complete"
    assert answer.headers["Millrace-File"] == upload["file"]["filename"]
    assert (upload["file"]["name"], upload["job_id"]) == ("отчёт.bin", None)
    assert tus.download(path) == content


def test_pieces_below_the_smallest_part_of_the_store(tus: Tus) -> None:
    content = os.urandom(13 * MIB + 11)
    path = tus.create(len(content))
    offset = 0
    while offset < len(content):
        answer = tus.patch(path, offset, content[offset : offset + MIB])
        assert answer.status_code == 204, answer.text
        offset = int(answer.headers["Upload-Offset"])
        assert offset == tus.offset(path)
    assert tus.download(path) == content

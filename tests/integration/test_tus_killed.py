"""Resumable uploads whose process is killed: amid the bytes, and between the last byte and the file."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from domain.errors.uploads import UploadLocked
from stack.up import Stack, running
from storage.database import autocommit
from storage.uploads import receiving
from tests.own_settings import settings_of
from tests.tus_client import Tus, eventually, sending

MIB = 1024**2


@pytest.fixture(scope="module")
def failpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="module")
def stack(failpoints: Path) -> Iterator[Stack]:
    env = {"LEASE_SECONDS": "2", "UPLOAD_SWEEP_SECONDS": "0.5", "MILLRACE_FAILPOINTS": str(failpoints)}
    with running(env=env, only=["api", "worker", "beat"]) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture
def tus(stack: Stack) -> Iterator[Tus]:
    with Tus(stack.url) as user:
        yield user


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


def test_a_request_that_wakes_after_its_lease_keeps_nothing(tus: Tus) -> None:
    upload_id = UUID(tus.create(9).rpartition("/")[2])
    with autocommit() as connection:
        owner = connection.execute(text("SELECT owner_id FROM uploads WHERE id = :id"), {"id": upload_id}).scalar_one()

    def keep(held: receiving.Held, received: int) -> None:
        receiving.keep(held, received=received, length=9, multipart_id=None, tail=("inputs/none", received))

    asleep, _ = receiving.claim(upload_id, owner, 0, None, 9)
    with pytest.raises(UploadLocked):
        receiving.claim(upload_id, owner, 0, None, 9)
    with autocommit() as connection:
        connection.execute(text("UPDATE uploads SET lease_until = now() WHERE id = :id"), {"id": upload_id})
    with pytest.raises(UploadLocked):
        keep(asleep, 4)
    awake, _ = receiving.claim(upload_id, owner, 0, None, 9)
    keep(awake, 3)
    with pytest.raises(UploadLocked):
        keep(asleep, 4)
    assert receiving.beat(asleep) == "lost"
    receiving.release(asleep)
    assert receiving.beat(awake) == "held"
    assert receiving.look(upload_id, owner).received == 3

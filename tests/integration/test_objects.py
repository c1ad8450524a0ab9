"""Object storage through a real `rclone serve s3`."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import BodyTooLarge
from stack.up import running
from storage import objects
from storage.objects import whole
from tests.own_settings import forget, settings_of

DATA = bytes(range(256)) * 40


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    with running(servers_only=True) as stack:
        public = stack.env["S3_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
        with settings_of({**stack.env, "S3_PUBLIC_ENDPOINT_URL": public}):
            objects.ensure_bucket()
            objects.ensure_bucket()  # and again where it is there already
            yield


@pytest.fixture
def key() -> str:
    key = objects.input_key(uuid4())
    objects.put(key, DATA)
    return key


def test_what_was_put_is_read(key: str) -> None:
    assert objects.read(key, len(DATA)) == DATA
    assert objects.size_of(key) == len(DATA)


def test_reading_over_the_limit_is_refused(key: str) -> None:
    with pytest.raises(BodyTooLarge):
        objects.read(key, len(DATA) - 1)


@pytest.mark.parametrize(
    ("start", "length"), [(0, 10), (5, 256), (len(DATA) - 3, 3), (0, len(DATA)), (7, 0), (0, len(DATA) + 1)]
)
def test_a_range_is_those_bytes(key: str, start: int, length: int) -> None:
    assert objects.read_range(key, start, length) == DATA[start : start + length]


def test_a_range_ends_with_the_object(key: str) -> None:
    assert objects.read_range(key, len(DATA) - 3, 100) == DATA[-3:]
    assert objects.read_range(key, len(DATA), 100) == b""
    assert objects.read_range(key, len(DATA) + 50, 100) == b""


def test_a_missing_key_is_always_object_missing() -> None:
    gone = objects.input_key(uuid4())
    for attempt in (
        lambda: objects.read(gone, 10),
        lambda: objects.read_range(gone, 0, 10),
        lambda: objects.size_of(gone),
        lambda: objects.complete_multipart(gone, "no-such-upload", ["x"]),
    ):
        with pytest.raises(ObjectMissing):
            attempt()
    objects.delete([gone])
    objects.abort_multipart(gone, "no-such-upload")


def test_many_keys_are_deleted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    job = uuid4()
    keys = [objects.result_key(job, n) for n in range(5)]
    for key in keys:
        objects.put(key, b"x")
    assert objects.below(objects.result_prefix(job)) == keys
    monkeypatch.setattr(whole, "DELETE_BATCH", 2)
    objects.delete(keys)
    assert objects.below(objects.result_prefix(job)) == []


def test_presigned_urls_read_and_write_without_our_keys(key: str) -> None:
    answer = httpx.get(objects.presign_get(key, 60, "отчёт.zip"))
    assert (answer.status_code, answer.content) == (200, DATA)
    other = objects.input_key(uuid4())
    assert httpx.put(objects.presign_put(other, 60), content=b"new").status_code == 200
    assert objects.read(other, 10) == b"new"
    public = objects.presign_get(key, 60, public=True)
    assert httpx.URL(public).host == "localhost"
    assert httpx.get(public).content == DATA


def test_a_presigned_url_is_for_one_key_only(key: str) -> None:
    other = objects.input_key(uuid4())
    objects.put(other, b"secret")
    assert httpx.get(objects.presign_get(key, 60).replace(key, other)).status_code in {400, 403}


def test_a_multipart_upload_is_one_object_when_it_is_completed() -> None:
    key = objects.input_key(uuid4())
    upload = objects.create_multipart(key, "application/zip")
    parts = [os.urandom(5 * 1024**2), b"the rest"]
    etags = [
        httpx.put(objects.presign_part(key, upload, number, 60), content=part).headers["etag"]
        for number, part in enumerate(parts, 1)
    ]
    with pytest.raises(ObjectMissing):
        objects.size_of(key)
    objects.complete_multipart(key, upload, etags)
    assert objects.read(key, 6 * 1024**2) == b"".join(parts)


def test_the_sweep_aborts_what_a_dead_process_left_and_nothing_newer() -> None:
    key = objects.input_key(uuid4())
    upload = objects.create_multipart(key, "application/zip")
    assert objects.sweep(timedelta(hours=1)) == 0
    assert (key, upload) in objects.unfinished()
    assert objects.sweep(timedelta(0)) == 1
    assert objects.sweep(timedelta(0)) == 0
    assert objects.unfinished() == []


def test_a_refused_connection_is_storage_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        forget()
        for attempt in (
            lambda: objects.read("inputs/x", 10),
            lambda: objects.put("inputs/x", b""),
            lambda: objects.delete(["inputs/x"]),
            lambda: objects.create_multipart("inputs/x", "a/b"),
            objects.unfinished,
        ):
            with pytest.raises(StorageUnavailable):
                attempt()
    monkeypatch.undo()
    forget()


def test_a_forked_child_makes_a_client_of_its_own(key: str) -> None:
    ours = objects.client()
    # a process without threads of pytest's, so that forking is safe
    program = f"""
import os
from storage import objects
from storage.objects import connection
mine = objects.client()
if os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
assert connection._clients == {{}}
assert objects.read({key!r}, 100000)
os._exit(0)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)
    assert objects.client() is ours


def test_importing_the_module_does_not_import_boto3() -> None:
    program = "import sys, storage.objects; sys.exit(any(name.startswith('boto') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

"""With DEDUPLICATE_FILES equal bytes of one owner are one object, which goes with the last file that names it."""

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from sqlalchemy import text

from domain.errors.neighbours import DatabaseUnavailable, ObjectMissing, StorageUnavailable
from domain.files import StoredObject
from domain.identity import new_id
from stack.up import Stack, running
from storage import files, objects
from storage.database import autocommit, transaction
from storage.jobs import retention
from tests.client import User
from tests.own_settings import settings_of
from tests.tus_client import Tus
from workers import files as workers_files

RAW = {"Content-Type": "application/x-test"}


@pytest.fixture(scope="module")
def api() -> Iterator[Stack]:
    env = {"DEDUPLICATE_FILES": "true"}
    with running(only=["api"], env=env) as stack, settings_of({**stack.env, **env}):
        yield stack


@pytest.fixture
def user(api: Stack) -> Iterator[User]:
    with User(api.url) as user:
        yield user


@pytest.fixture(autouse=True)
def nothing_stored(api: Stack) -> Iterator[None]:
    yield
    with autocommit() as connection:
        for table in ("jobs", "files", "leftovers"):
            connection.execute(text(f"DELETE FROM {table}"))
    objects.delete(objects.below(""))


def upload(user: User, data: bytes, name: str = "a") -> dict[str, Any]:
    answer = user.http.post(f"/upload?name={name}", content=data, headers=RAW)
    assert answer.status_code == 201, answer.text
    file: dict[str, Any] = answer.json()
    return file


def download(user: User, file: dict[str, Any]) -> httpx.Response:
    return user.http.get(f"/download/{file['filename']}")


@pytest.mark.parametrize("size", [5000, 6 * 1024**2])
def test_equal_bytes_of_resumable_uploads_are_one_object_too(api: Stack, user: User, size: int) -> None:
    data = os.urandom(size)
    made = [upload(user, data)]
    with Tus(api.url, user.http.headers["Authorization"].removeprefix("Bearer ")) as tus:
        for _ in range(2):
            path = tus.create(size)
            assert tus.patch(path, 0, data).status_code == 204
            made.append(tus.read(path)["file"])
    assert len(objects.below("")) == 1
    for file in made[:2]:
        delete(user, file)
    assert download(user, made[2]).content == data
    delete(user, made[2])
    assert objects.below("") == []


def delete(user: User, file: dict[str, Any]) -> None:
    user.http.delete(f"/files/{file['filename']}").raise_for_status()


def test_equal_bytes_are_one_object_until_the_last_of_them_goes(user: User) -> None:
    data = os.urandom(5000)
    made = [upload(user, data, name) for name in ("a.txt", "b.txt", "c.txt")]
    assert len(objects.below("")) == 1
    assert [file["name"] for file in made] == ["a.txt", "b.txt", "c.txt"]
    assert len({file["id"] for file in made}) == 3
    for file in (made[0], made[2]):
        delete(user, file)
        assert download(user, made[1]).content == data
    delete(user, made[1])
    assert objects.below("") == []


def test_another_owner_and_other_bytes_have_objects_of_their_own(api: Stack, user: User) -> None:
    data = os.urandom(5000)
    mine = upload(user, data)
    upload(user, data[:-1])
    with User(api.url) as other:
        theirs = upload(other, data)
        assert len(objects.below("")) == 3
        delete(user, mine)
        assert download(other, theirs).content == data


def test_an_object_that_was_lost_is_not_named_again(user: User) -> None:
    data = os.urandom(5000)
    first = upload(user, data)
    objects.delete(objects.below(""))
    second = upload(user, data)
    assert download(user, first).status_code == 410
    assert download(user, second).content == data


def test_a_job_that_is_deleted_leaves_what_a_file_names(user: User) -> None:
    data = os.urandom(5000)
    file = upload(user, data)
    job = user.http.post("/jobs", content=data, headers=RAW).json()
    assert len(objects.below("")) == 1
    assert job["file"]["id"] != file["id"]
    user.http.delete(f"/jobs/{job['id']}").raise_for_status()
    assert download(user, file).content == data
    again = user.http.post("/jobs", content=data, headers=RAW).json()
    delete(user, file)
    assert user.http.get(f"/jobs/{again['id']}/file").content == data
    user.http.delete(f"/jobs/{again['id']}").raise_for_status()
    assert objects.below("") == []


def test_retention_leaves_what_a_file_names(user: User) -> None:
    data = os.urandom(5000)
    jobs = [user.http.post("/jobs", content=data, headers=RAW).json() for _ in range(3)]
    file = upload(user, data)
    ended = "status = 'cancelled', step = NULL, admitted = FALSE, completed_at = now() - interval '1 h'"
    for some in (jobs[:1], jobs[1:]):
        with transaction() as connection:
            ids = {"ids": [UUID(job["id"]) for job in some]}
            connection.execute(text(f"UPDATE jobs SET {ended} WHERE id = ANY(:ids)"), ids)
        with transaction() as connection:
            removed = retention.remove(connection, 60, 10)
        assert (len(removed.jobs), removed.keys) == (len(some), [])
    assert download(user, file).content == data
    delete(user, file)
    assert objects.below("") == []


def test_an_upload_straight_to_the_storage_joins_in(user: User) -> None:
    data = os.urandom(5000)
    upload(user, data)
    begun = user.http.post("/uploads/direct", json={"name": "b", "size": len(data)}).json()
    httpx.put(begun["parts"][0]["url"], content=data).raise_for_status()
    file = user.http.post(f"/uploads/direct/{begun['id']}/complete", json={}).json()
    assert len(objects.below("")) == 1
    assert download(user, file).content == data


@pytest.mark.parametrize("seed", [1, 2])
def test_no_order_of_uploads_deletes_and_sweeps_loses_an_object_or_keeps_one(
    monkeypatch: pytest.MonkeyPatch, user: User, seed: int
) -> None:
    """Everything is old here, so the sweep would take what is unnamed for a moment."""
    owner = UUID(user.http.get("/auth/me").json()["id"])
    settings = msgspec.structs.replace(workers_files.settings(), upload_leftover_seconds=0.001)
    monkeypatch.setattr(workers_files, "settings", lambda: settings)
    monkeypatch.setattr(workers_files, "SUSPICIOUS", 10**6)
    over = threading.Event()
    counts = {"shared": 0, "own": 0, "last": 0, "deleted": 0}
    missing: list[str] = []

    def one(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        mine: list[str] = []
        while not over.is_set():
            file_id = new_id()
            key = objects.input_key(file_id)
            objects.put(key, b"equal")
            stored = StoredObject(
                id=file_id, key=key, name="a", size=5, sha256="e", content_type="text/plain", kind="single"
            )
            stored = msgspec.structs.replace(stored, twin=files.twin(owner, stored))
            try:
                with transaction() as connection:
                    made = files.insert(connection, owner, stored)
                    time.sleep(chance.choice((0, 0.001, 0.01)))
            except StorageUnavailable:
                continue
            named = files.locate(made.filename, owner).key
            counts["own" if named == key else "shared"] += 1
            try:
                objects.size_of(named)
            except ObjectMissing:
                missing.append(named)
            if named != key:
                objects.delete([key])
            mine.append(made.filename)
            while mine and chance.random() < 0.7:
                keys = files.delete(mine.pop(chance.randrange(len(mine))), owner)
                counts["deleted"] += 1
                counts["last"] += len(keys)
                objects.delete(keys)
        for filename in mine:
            objects.delete(files.delete(filename, owner))

    def sweep() -> None:
        while not over.is_set():
            with suppress(DatabaseUnavailable):  # the table was busy
                workers_files.reconcile()

    with ThreadPoolExecutor(6) as pool:
        running = [*(pool.submit(one, number) for number in range(4)), pool.submit(sweep)]
        began = time.monotonic()
        # until there was enough of everything, which takes longer on a busy machine
        while time.monotonic() - began < 3 or (counts["last"] <= 2 and time.monotonic() - began < 20):
            time.sleep(0.1)
        over.set()
        for each in running:
            each.result(30)
    assert missing == []
    assert counts["shared"] > 20, counts
    assert counts["last"] > 2, counts
    with autocommit() as connection:
        assert connection.execute(text("SELECT count(*) FROM files")).scalar_one() == 0
        fenced = set(connection.execute(text("SELECT key FROM leftovers")).scalars())
    assert set(objects.below("")) <= fenced, "the last file takes the object with it, without any sweep"

"""The sweep of the object storage deletes what nothing names, in time and in pieces, and never what a row names."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import text

from domain.errors.neighbours import DatabaseUnavailable, StorageUnavailable
from domain.files import StoredObject
from domain.identity import new_id
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import files as rows
from storage import objects, reconciliation
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.uploads import creation, receiving
from tests import job_rows
from workers import files
from workers.files import reconcile


@pytest.fixture(scope="module", autouse=True)
def owner(in_process: Stack) -> UUID:
    upgrade()
    return job_rows.account()


@pytest.fixture(autouse=True)
def nothing_stored() -> Iterator[None]:
    yield
    with autocommit() as connection:
        for table in ("jobs", "files", "leftovers", "housekeeping"):
            connection.execute(text(f"DELETE FROM {table}"))
    objects.delete(objects.below(""))
    for key, upload_id in objects.unfinished():
        objects.abort_multipart(key, upload_id)


@pytest.fixture
def everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = msgspec.structs.replace(settings(), upload_leftover_seconds=0.001)
    monkeypatch.setattr(files, "settings", lambda: changed)


@pytest.fixture
def age(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a stored object look two days old in listings: rclone keeps times in memory, past the reach of `utime`."""
    old: set[str] = set()
    listed = objects.listed

    def with_ages(*asked: Any) -> tuple[list[objects.Listed], bool]:
        found, more = listed(*asked)
        return [one._replace(age=timedelta(days=2)) if one.key in old else one for one in found], more

    def aged(key: str) -> str:
        old.add(key)
        return key

    monkeypatch.setattr(objects, "listed", with_ages)
    return aged


def put(key: str | None = None) -> str:
    key = key or objects.input_key(new_id())
    objects.put(key, b"x")
    return key


def stored(key: str) -> StoredObject:
    file_id = UUID(key.split("/")[1])
    return StoredObject(id=file_id, key=key, name="a.txt", size=1, sha256="x", content_type="text/plain", kind="single")


def standing() -> dict[str, dict[str, Any]]:
    with autocommit() as connection:
        return {row["name"]: dict(row) for row in connection.execute(text("SELECT * FROM housekeeping")).mappings()}


# ---------------------------------------------------------------- what is deleted


def test_what_is_old_and_unnamed_goes_and_all_else_stays(owner: UUID, age: Callable[[str], str]) -> None:
    left = [age(put()), age(put(objects.result_key(uuid4(), 1)))]
    job = job_rows.claimed().job.id
    stays = [
        put(),  # an upload whose row is not committed yet
        put(objects.result_key(uuid4(), 1)),
        age(put()),  # named
        age(put(objects.result_key(job, 2))),  # the job runs, and no row names it yet
        age(put("elsewhere/1")),  # not ours
        age(put("results/not-an-id")),
    ]
    rows.create(owner, stored(stays[2]))
    reconcile()
    assert sorted(objects.below("")) == sorted(stays)
    assert [standing()[name]["total"] for name in ("objects.inputs", "objects.results")] == [1, 1]
    assert set(left).isdisjoint(stays)


def test_what_a_resumable_upload_has_in_the_store_stays_until_the_upload_goes(
    owner: UUID, age: Callable[[str], str], everything_is_old: None
) -> None:
    uploads = [creation.NewUpload(id=new_id(), owner_id=owner, length=9, metadata="") for _ in range(2)]
    with transaction() as connection:
        for upload in uploads:
            creation.create(connection, upload)
    begun, whole = (objects.input_key(upload.id) for upload in uploads)
    age(put(whole))  # joined of its parts, and no file yet
    tail, multipart_id = age(put()), objects.create_multipart(begun, "text/plain")
    held, _ = receiving.claim(uploads[0].id, owner, 0, None, 5)
    receiving.keep(held, received=5, length=9, multipart_id=multipart_id, tail=(tail, 5))
    reconcile()
    assert sorted(objects.below("")) == sorted([tail, whole])
    assert objects.unfinished() == [(begun, multipart_id)]
    with autocommit() as connection:
        connection.execute(text("DELETE FROM uploads"))
    reconcile()
    assert objects.below("") == objects.unfinished() == []


def test_unfinished_uploads_go_when_they_are_old(request: pytest.FixtureRequest) -> None:
    begun = objects.create_multipart(objects.input_key(new_id()), "text/plain")
    reconcile()
    assert [upload_id for _, upload_id in objects.unfinished()] == [begun]
    request.getfixturevalue("everything_is_old")
    reconcile()
    assert objects.unfinished() == []
    assert standing()["uploads"]["total"] == 1


def test_results_go_after_their_job(age: Callable[[str], str]) -> None:
    job = job_rows.queued()
    key = age(put(objects.result_key(job, 1)))
    reconcile()
    assert objects.below("results/") == [key]
    job_rows.clear()
    reconcile()
    assert objects.below("results/") == []


def test_what_was_left_by_a_crash_in_the_middle_goes_in_the_next_run(
    monkeypatch: pytest.MonkeyPatch, age: Callable[[str], str]
) -> None:
    age(put())

    def dies(_: object) -> None:
        raise StorageUnavailable(key="x")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", dies)
        with pytest.raises(StorageUnavailable):
            reconcile()
    reconcile()
    assert objects.below("") == []


def test_more_leftovers_than_files_are_held_back(
    monkeypatch: pytest.MonkeyPatch, age: Callable[[str], str], owner: UUID
) -> None:
    monkeypatch.setattr(files, "SUSPICIOUS", 3)
    keys = sorted(age(put()) for _ in range(5))
    reconcile()
    assert sorted(objects.below("")) == keys, "this may be another database"
    assert standing()["objects.inputs"]["held"] == 5
    for _ in range(5):
        rows.create(owner, stored(put()))
    reconcile()
    assert set(objects.below("")).isdisjoint(keys)
    assert standing()["objects.inputs"]["held"] == 0


# ---------------------------------------------------------------- a row about to be committed


@pytest.mark.usefixtures("everything_is_old")
def test_an_upload_whose_row_comes_too_late_fails_and_leaves_no_row(owner: UUID) -> None:
    key = put()
    reconcile()
    with pytest.raises(StorageUnavailable):
        rows.create(owner, stored(key))
    assert rows.page(owner, 10).items == []


@pytest.mark.usefixtures("everything_is_old")
def test_a_row_that_is_about_to_be_committed_is_waited_for(owner: UUID) -> None:
    key = put()
    with ThreadPoolExecutor(1) as pool:
        with transaction() as connection:
            rows.insert(connection, owner, stored(key))
            sweeping = pool.submit(reconcile)
            time.sleep(0.15)
        sweeping.result(10)
    assert objects.below("inputs/") == [key]


@pytest.mark.usefixtures("everything_is_old")
def test_a_row_that_hangs_is_not_waited_for_long(owner: UUID) -> None:
    key = put()
    with transaction() as connection:
        rows.insert(connection, owner, stored(key))
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            reconcile()
        assert time.monotonic() - began < 5, "whoever writes files waits behind the sweep"
    reconcile()
    assert objects.below("inputs/") == [key]


@pytest.mark.usefixtures("everything_is_old")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_order_of_uploads_deletes_and_sweeps_loses_a_named_object(
    monkeypatch: pytest.MonkeyPatch, owner: UUID, seed: int
) -> None:
    """Everything is old here, so that age protects nothing: the fence must."""
    monkeypatch.setattr(files, "PAGE", 20)
    monkeypatch.setattr(files, "SUSPICIOUS", 10**6)
    over = threading.Event()
    counts = {"committed": 0, "refused": 0, "deleted": 0, "busy": 0}

    def upload(number: int) -> None:
        chance = random.Random(seed * 100 + number)
        mine: list[str] = []
        while not over.is_set():
            key = put()
            time.sleep(chance.choice((0, 0, 0.002, 0.03)))
            try:
                with transaction() as connection:
                    file = rows.insert(connection, owner, stored(key))
                    time.sleep(chance.choice((0, 0.001, 0.02)))
            except StorageUnavailable:
                counts["refused"] += 1
                continue
            counts["committed"] += 1
            mine.append(file.filename)
            if chance.random() < 0.3:
                objects.delete(rows.delete(mine.pop(chance.randrange(len(mine))), owner))
                counts["deleted"] += 1

    def sweep() -> None:
        while not over.is_set():
            try:
                reconcile()
            except DatabaseUnavailable:
                counts["busy"] += 1

    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(upload, number) for number in range(3)] + [pool.submit(sweep) for _ in range(2)]
        began = time.monotonic()
        while (gone := time.monotonic() - began) < 4 or (
            gone < 60 and (counts["committed"] <= 20 or not counts["refused"])
        ):
            time.sleep(0.1)
        over.set()
        for one in running:
            one.result(30)
    with autocommit() as connection:
        named = set(connection.execute(text("SELECT object_key FROM files")).scalars())
    there = set(objects.below("inputs/"))
    assert named <= there, "never what a row names"
    for _ in range(len(there) // 20 + 2):
        reconcile()
    assert set(objects.below("inputs/")) == named, "and all that no row names"
    assert counts["committed"] > 20
    assert counts["refused"] > 0, counts


# ---------------------------------------------------------------- in pieces


def test_a_run_is_bounded_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch, age: Callable[[str], str]) -> None:
    monkeypatch.setattr(files, "PAGE", 4)
    monkeypatch.setattr(files, "RUN_SECONDS", 0)
    keys = [age(put()) for _ in range(10)]
    left = []
    for _ in range(3):
        reconcile()
        left.append(sum(files._is_there(key) for key in keys))
    assert left == [6, 2, 0]
    whole = standing()["objects.inputs"]
    assert (whole["after"], whole["found_before"], whole["found"], whole["total"]) == ("", 10, 0, 10)
    assert whole["passed_at"] is not None


def test_a_second_run_at_once_counts_nothing_twice(age: Callable[[str], str]) -> None:
    for _ in range(30):
        age(put())
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: reconcile(), range(3)))
    assert objects.below("") == []
    assert standing()["objects.inputs"]["total"] <= 30


# ---------------------------------------------------------------- rows whose object is gone


def test_rows_without_their_object_are_counted_and_kept(
    monkeypatch: pytest.MonkeyPatch, owner: UUID, age: Callable[[str], str]
) -> None:
    monkeypatch.setattr(files, "PAGE", 3)
    keys = [put() for _ in range(8)]
    for key in keys:
        rows.create(owner, stored(key))
    objects.delete([keys[1], keys[6]])
    reconcile()
    assert standing()["rows.files"]["found_before"] == 2
    assert len(rows.page(owner, 100).items) == 8
    put(keys[1])
    rows.delete(
        next(one.filename for one in rows.page(owner, 100).items if one.filename.startswith(keys[6][7:])), owner
    )
    reconcile()
    assert standing()["rows.files"]["found_before"] == 0


def test_results_that_are_gone_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    there, gone, failed = (job_rows.claimed().job.id for _ in range(3))
    for job_id in (there, gone, failed):
        status = "'failed', error_code = 'x'" if job_id == failed else "'succeeded'"
        key = put(objects.result_key(job_id, 1))
        job_rows.change(
            job_id,
            f"claim = NULL, lease_until = NULL, step = NULL, result_key = '{key}', status = {status}, "
            "completed_at = now()",
        )
    objects.delete([objects.result_key(gone, 1), objects.result_key(failed, 1)])
    reconcile()
    assert standing()["rows.results"]["found_before"] == 1


def test_a_row_that_goes_while_it_is_looked_for_is_not_missed(monkeypatch: pytest.MonkeyPatch, owner: UUID) -> None:
    file = rows.create(owner, stored(put()))
    real = objects.size_of

    def deleted_meanwhile(key: str) -> int:
        rows.delete(file.filename, owner)
        return real(key)

    objects.delete(objects.below(""))
    monkeypatch.setattr(objects, "size_of", deleted_meanwhile)
    reconcile()
    assert standing()["rows.files"]["found_before"] == 0


def test_old_fences_are_taken_down(owner: UUID) -> None:
    with transaction() as connection:
        reconciliation.fence(connection, ["inputs/a", "inputs/b"])
        connection.execute(text("UPDATE leftovers SET found_at = now() - interval '31 days' WHERE key = 'inputs/a'"))
    reconcile()
    with autocommit() as connection:
        assert list(connection.execute(text("SELECT key FROM leftovers")).scalars()) == ["inputs/b"]

"""What has been kept for its time is removed with all that belongs to it, in batches, and nothing else is."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import text

from domain.errors.neighbours import StorageUnavailable
from domain.errors.requests import NotFound
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import idempotency, objects
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.jobs import commands
from tests import job_rows
from workers import retention

DAY = 24 * 3600
TABLES = ("jobs", "files", "housekeeping", "idempotency_keys")


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def nothing_stored() -> Iterator[None]:
    yield
    with autocommit() as connection:
        for table in TABLES:
            connection.execute(text(f"DELETE FROM {table}"))
    objects.delete(objects.below(""))


def keep(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Change what is kept for how long; everything else is kept for ever."""
    forever = {"job_retention_seconds": 0, "event_retention_seconds": 0, "attempt_retention_seconds": 0}
    changed = msgspec.structs.replace(settings(), **{**forever, **seconds})
    monkeypatch.setattr(retention, "settings", lambda: changed)


def ended(days: float, *, owns: bool = False, status: str = "succeeded") -> UUID:
    """A job that ended so long ago, with an attempt, events, and objects."""
    job_id = job_rows.claimed().job.id
    key = objects.result_key(job_id, 1)
    error = ", error_code = 'x'" if status == "failed" else f", result_key = '{key}'"
    job_rows.change(
        job_id,
        f"claim = NULL, lease_until = NULL, step = NULL, status = '{status}', owns_input = {owns}, "
        f"event_seq = 3{error}, completed_at = now() - interval '{days} days'",
    )
    with autocommit() as connection:
        for sql in (
            f"""INSERT INTO job_events (job_id, seq, type, data, owner_id)
                SELECT id, 3, '{status}', '{{}}', owner_id FROM jobs WHERE id = :id""",
            """INSERT INTO job_attempts (job_id, step, attempt, outcome, started_at)
               VALUES (:id, 'inspect', 1, 'x', now())""",
        ):
            connection.execute(text(sql), {"id": job_id})
    for one in (key, _input(job_id)):
        objects.put(one, b"x")
    return job_id


def _input(job_id: UUID) -> str:
    return f"inputs/{job_rows.row(job_id)['input_file_id']}"


def there(job_id: UUID) -> bool:
    with autocommit() as connection:
        return bool(connection.execute(text("SELECT FROM jobs WHERE id = :id"), {"id": job_id}).first() is not None)


def count(table: str, **where: Any) -> int:
    condition = " AND ".join(f"{name} = :{name}" for name in where) or "TRUE"
    with autocommit() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {condition}"), where).scalar_one())


# ---------------------------------------------------------------- jobs


def test_old_jobs_go_with_all_that_belongs_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, job_retention_seconds=90 * DAY)
    old = [ended(91, owns=True), ended(400, owns=True, status="failed"), ended(91, status="cancelled")]
    stays = [ended(89), job_rows.queued(), job_rows.claimed().job.id, job_rows.pending()]
    for job_id in stays[1:]:
        job_rows.change(job_id, "created_at = now() - interval '1000 days'")
    files_of_their_own = [_input(old[2]), _input(stays[0])]
    retention.remove_expired()
    assert [there(job_id) for job_id in old] == [False] * 3
    assert [there(job_id) for job_id in stays] == [True] * 4
    for table in ("job_events", "job_attempts"):
        assert all(count(table, job_id=job_id) == 0 for job_id in old)
        assert count(table, job_id=stays[0]) > 0
    assert sorted(objects.below("")) == sorted([*files_of_their_own, objects.result_key(stays[0], 1)])


def test_nothing_goes_that_is_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch)
    job_id = ended(10_000)
    retention.remove_expired()
    assert len(job_rows.types(job_id)) == 3
    assert len(job_rows.attempts(job_id)) == 1


def test_a_file_goes_with_the_last_job_that_works_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, job_retention_seconds=90 * DAY)
    first, second = ended(91, owns=True), ended(80)
    job_rows.change(second, f"input_file_id = '{job_rows.row(first)['input_file_id']}', parent_id = '{first}'")
    key = _input(first)
    retention.remove_expired()
    assert not there(first)
    assert job_rows.row(second)["parent_id"] is None
    assert key in objects.below("inputs/")
    job_rows.change(
        second,
        "completed_at = completed_at",
    )
    with autocommit() as connection:
        connection.execute(text("ALTER TABLE jobs DISABLE TRIGGER jobs_keep_rules"))
        connection.execute(text("UPDATE jobs SET completed_at = now() - interval '91 days'"))
        connection.execute(text("ALTER TABLE jobs ENABLE TRIGGER jobs_keep_rules"))
    retention.remove_expired()
    assert not there(second)
    assert key not in objects.below("inputs/")


def test_a_job_is_not_made_of_a_file_that_was_deleted_meanwhile() -> None:
    made = job_rows.row(job_rows.queued())
    job = commands.NewJob(
        id=uuid4(),
        owner_id=made["owner_id"],
        kind="inference",
        title="too late",
        description=None,
        params={},
        first_step="inspect",
        input_file_id=uuid4(),
    )
    with pytest.raises(NotFound, match="file"), transaction() as connection:
        commands.create(connection, job, limit=10, republish=60)


def test_the_batches_are_bounded_and_two_runs_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, job_retention_seconds=90 * DAY)
    monkeypatch.setattr(retention, "JOBS", 5)
    monkeypatch.setattr(retention, "RUN_SECONDS", 0)
    template = ended(91)
    with autocommit() as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, owner_id, kind, title, status, completed_at, event_seq)
            SELECT gen_random_uuid(), owner_id, kind, title, 'cancelled', completed_at, 0
            FROM jobs, generate_series(1, 39) WHERE jobs.id = :id"""),
            {"id": template},
        )
    retention.remove_expired()
    assert count("jobs") == 35
    monkeypatch.setattr(retention, "RUN_SECONDS", 10)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: retention.remove_expired(), range(3)))
    assert count("jobs") == 0


def test_two_runs_leave_no_file_of_a_job_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, job_retention_seconds=90 * DAY)
    monkeypatch.setattr(retention, "JOBS", 1)
    for _ in range(6):
        first, second = ended(91, owns=True), ended(91, owns=True)
        job_rows.change(second, f"input_file_id = '{job_rows.row(first)['input_file_id']}'")
    shared = count("files")
    assert shared == 12
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: retention.remove_expired(), range(4)))
    assert count("jobs") == 0
    assert count("files") == 6, "only those no job owned at the end"


def test_a_job_that_is_made_of_the_file_meanwhile_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, job_retention_seconds=90 * DAY)
    old = ended(91, owns=True)
    key, file_id = _input(old), job_rows.row(old)["input_file_id"]
    with ThreadPoolExecutor(1) as pool:
        with transaction() as connection:
            connection.execute(
                text("""
                INSERT INTO jobs (id, owner_id, kind, title, input_file_id, status, event_seq)
                SELECT :id, owner_id, kind, title, :file, 'pending', 0 FROM jobs WHERE id = :old"""),
                {"id": uuid4(), "file": file_id, "old": old},
            )
            running = pool.submit(retention.remove_expired)
            with pytest.raises(TimeoutError):
                running.result(0.3)
        running.result(10)
    assert not there(old)
    assert objects.below("inputs/") == [key]
    assert count("jobs", input_file_id=file_id, owns_input=True) == 1, "and goes with it"


# ---------------------------------------------------------------- when the store is away


def test_no_job_goes_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, job_retention_seconds=90 * DAY)
    job_id = ended(91, owns=True)

    def away(*_: object) -> None:
        raise StorageUnavailable(key="")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "listed", away)
        with pytest.raises(StorageUnavailable):
            retention.remove_expired()
    assert there(job_id)
    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", away)
        with pytest.raises(StorageUnavailable):
            retention.remove_expired()
    assert not there(job_id)
    assert len(objects.below("")) == 2, "left to the reconciliation"


# ---------------------------------------------------------------- details


def test_details_go_before_their_job_and_its_last_event_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, event_retention_seconds=30 * DAY, attempt_retention_seconds=10 * DAY)
    monkeypatch.setattr(retention, "TRIMMED", 2)
    old = [ended(31 + number) for number in range(5)]
    younger, youngest = ended(20), ended(5)
    unfinished = job_rows.claimed().job.id
    retention.remove_expired()
    assert [(count("job_events", job_id=job_id), count("job_attempts", job_id=job_id)) for job_id in old] == [
        (1, 0)
    ] * 5
    with autocommit() as connection:
        types = connection.execute(text("SELECT DISTINCT type FROM job_events WHERE job_id = ANY(:ids)"), {"ids": old})
        assert list(types.scalars()) == ["succeeded"]
    assert (count("job_events", job_id=younger), count("job_attempts", job_id=younger)) == (3, 0)
    assert (count("job_events", job_id=youngest), count("job_attempts", job_id=youngest)) == (3, 1)
    assert count("job_events", job_id=unfinished) == 2
    later = ended(30.5)
    retention.remove_expired()
    assert count("job_events", job_id=later) == 1, "the pass goes on from where it was"


def test_two_runs_trim_each_job_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, event_retention_seconds=DAY)
    monkeypatch.setattr(retention, "TRIMMED", 2)
    jobs = [ended(2) for _ in range(8)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: retention.remove_expired(), range(3)))
    retention.remove_expired()
    assert [count("job_events", job_id=job_id) for job_id in jobs] == [1] * 8
    with autocommit() as connection:
        total = connection.execute(text("SELECT total FROM housekeeping WHERE name = 'events'")).scalar_one()
    assert total == 16


def test_expired_idempotency_keys_go(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch)
    for number, seconds in enumerate((60.0, 60.0)):
        key = idempotency.Key(owner_id=uuid4(), route="POST /x", key=str(number))
        idempotency.claim(key, lease=seconds, keep=seconds)
    with autocommit() as connection:
        connection.execute(
            text("""
            UPDATE idempotency_keys SET expires_at = now() - interval '1 s', locked_until = now() - interval '1 s'
            WHERE key = '0'""")
        )
    retention.remove_expired()
    assert count("idempotency_keys") == 1

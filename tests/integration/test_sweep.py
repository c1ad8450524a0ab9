"""The sweep finds whatever stands still, may run twice at once, and never does more than a batch at a time."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import text

from domain.errors.inference import MlTimeout
from domain.errors.jobs import PendingExpired
from migrations.__main__ import upgrade
from stack.network import accepts
from stack.up import Stack
from storage import dispatch
from storage.database import autocommit, engine
from storage.jobs import sweep, transitions
from tests import job_rows
from workers import jobs


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def no_jobs() -> None:
    job_rows.clear()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[UUID, str]]:
    """What the sweep sends, in place of sending it."""
    sent: list[tuple[UUID, str]] = []

    def publish_many(dues: Sequence[sweep.Due]) -> list[sweep.Due]:
        sent.extend((due.job_id, due.step) for due in dues)
        return []

    monkeypatch.setattr(dispatch, "publish_many", publish_many)
    return sent


def ask(question: Callable[..., Any], *args: Any) -> Any:
    with autocommit() as connection:
        return question(connection, *args)


def lose(job_id: UUID) -> None:
    job_rows.change(job_id, "lease_until = now() - interval '1 s'")


def due_now(job_id: UUID) -> None:
    job_rows.change(job_id, "republish_at = now() - interval '1 s'")


# ---------------------------------------------------------------- publishing


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("the transport fell over its own feet")])
def test_a_job_that_could_not_be_published_for_whatever_reason_is_left_to_the_next_sweep(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    job_id = job_rows.queued()
    job_rows.change(job_id, "republish_at = now() + interval '1 h'")
    monkeypatch.setattr(dispatch.broker, "send_task", fail)
    dispatch.publish_or_leave_to_sweep(sweep.Due(job_id=job_id, kind="inference", step="inspect", lane=0))
    monkeypatch.undo()
    sent: list[UUID] = []
    monkeypatch.setattr(dispatch, "publish_many", lambda dues: sent.extend(due.job_id for due in dues) or [])
    jobs.sweep()
    assert sent == [job_id]


# ---------------------------------------------------------------- lost leases


def test_a_lease_that_has_run_out_is_taken_back_and_its_step_published(published: list[tuple[UUID, str]]) -> None:
    claim = job_rows.claimed()
    lose(claim.job.id)
    jobs.sweep()
    assert published == [(claim.job.id, "inspect")]
    assert job_rows.types(claim.job.id) == ["queued", "stage", "interrupted"]
    assert job_rows.attempts(claim.job.id) == [("inspect", 1, "lost", "w1")]
    again = job_rows.claim(claim.job.id, worker="w2")
    assert again.job.attempt == 1, "it costs no attempt"
    assert ask(transitions.heartbeat, [claim.token, again.token], 60) == {again.token: False}


def test_a_lease_that_stands_is_left_alone(published: list[tuple[UUID, str]]) -> None:
    claim = job_rows.claimed(lease=0.5)
    jobs.sweep()
    ask(transitions.heartbeat, [claim.token], 60)
    jobs.sweep()
    assert published == []
    assert job_rows.types(claim.job.id) == ["queued", "stage"]


def test_a_step_that_takes_its_worker_with_it_three_times_is_not_given_another(
    published: list[tuple[UUID, str]],
) -> None:
    job_id = job_rows.queued()
    for losses in (1, 2, 3):
        job_rows.claim(job_id)
        lose(job_id)
        jobs.sweep()
        assert job_rows.row(job_id)["losses"] == losses
    assert published == [(job_id, "inspect")] * 2
    assert job_rows.types(job_id)[-3:] == ["interrupted", "stage", "failed"]
    row = job_rows.row(job_id)
    assert (row["status"], row["error_code"], row["error_stage"]) == ("failed", "worker_lost", "inspect")
    assert [attempt[2] for attempt in job_rows.attempts(job_id)] == ["lost"] * 3


def test_losses_are_counted_for_each_step_by_itself(published: list[tuple[UUID, str]]) -> None:
    job_id = job_rows.queued()
    for step, following in (("inspect", "submit"), ("submit", "parse")):
        for _ in range(2):
            job_rows.claim(job_id, step)
            lose(job_id)
            jobs.sweep()
        claim = job_rows.claim(job_id, step)
        with autocommit() as connection:
            transitions.hand_over(
                connection, claim, next_step=following, until=1, seconds=30, message=None, result=None
            )
    assert job_rows.row(job_id)["losses"] == 0


def test_a_lease_is_taken_back_while_its_worker_hangs_amid_its_effects(published: list[tuple[UUID, str]]) -> None:
    """Its open transaction refers to the job, which locks the row against a FOR UPDATE."""
    claim = job_rows.claimed()
    lose(claim.job.id)
    with engine().begin() as connection:
        connection.execute(text("INSERT INTO archives (job_id, summary) VALUES (:id, '{}')"), {"id": claim.job.id})
        jobs.sweep()
        assert published == [(claim.job.id, "inspect")]
        connection.rollback()


# ---------------------------------------------------------------- deadlines


def waiting(kind: str) -> UUID:
    claim = job_rows.claimed(kind, "submit")
    with autocommit() as connection:
        assert transitions.wait(connection, claim, next_step="parse", seconds=60, lease=60, message=None)
    return claim.job.id


def test_a_missed_deadline_ends_the_jobs_of_that_kind_only() -> None:
    late, other, in_time = waiting("inference"), waiting("recordings"), waiting("inference")
    for job_id in (late, other):
        job_rows.change(job_id, "deadline_at = now() - interval '1 s'")
    (moved,) = ask(sweep.fail_overdue, "inference", MlTimeout())
    assert moved.event.job_id == late
    row = job_rows.row(late)
    assert (row["error_code"], row["error_retryable"], row["error_stage"]) == ("ml_timeout", True, "waiting")
    assert {job_rows.row(job_id)["status"] for job_id in (other, in_time)} == {"processing"}


def test_a_job_that_goes_on_in_time_has_no_deadline_any_more() -> None:
    job_id = waiting("inference")
    job_rows.change(job_id, "deadline_at = now() - interval '1 s'")
    with autocommit() as connection:
        assert transitions.signal(connection, job_id, {}, waits="submit", until=80, republish=30, result=None)
    assert ask(sweep.fail_overdue, "inference", MlTimeout()) == []


def test_a_job_whose_file_never_comes_is_given_up() -> None:
    old, new, queued = job_rows.pending(), job_rows.pending(), job_rows.queued()
    for job_id in (old, queued):
        job_rows.change(job_id, "created_at = now() - interval '1 hour'")
    (moved,) = ask(sweep.fail_abandoned, 3000, PendingExpired())
    assert (moved.event.job_id, moved.event.data["error"]["code"]) == (old, "pending_expired")
    assert (job_rows.row(new)["status"], job_rows.row(queued)["status"]) == ("pending", "queued")


# ---------------------------------------------------------------- cancelling


def test_a_cancelled_job_that_nobody_holds_is_ended() -> None:
    pending, queued, waits = job_rows.pending(), job_rows.queued(), waiting("inference")
    held, lost = job_rows.claimed().job.id, job_rows.claimed().job.id
    untouched = job_rows.queued()
    lose(lost)
    for job_id in (pending, queued, waits, held, lost):
        job_rows.change(job_id, "cancel_requested_at = now()")
    moved = ask(sweep.finish_cancelled)
    assert {one.event.job_id for one in moved} == {pending, queued, waits, lost}
    assert {one.event.type for one in moved} == {"cancelled"}
    assert job_rows.row(held)["status"] == "processing", "it leaves by itself at its next checkpoint"
    assert job_rows.row(untouched)["status"] == "queued"
    assert ask(sweep.finish_cancelled) == []


def test_a_cancelled_job_is_neither_taken_back_nor_published(published: list[tuple[UUID, str]]) -> None:
    claim = job_rows.claimed()
    lose(claim.job.id)
    job_rows.change(claim.job.id, "cancel_requested_at = now()")
    jobs.sweep()
    assert published == []
    assert job_rows.types(claim.job.id) == ["queued", "stage", "cancelled"]


# ---------------------------------------------------------------- publishing


def test_a_job_is_published_once_until_it_is_due_again(published: list[tuple[UUID, str]]) -> None:
    job_id = job_rows.queued()
    jobs.sweep()
    assert published == [], "it was published when it was created"
    due_now(job_id)
    jobs.sweep()
    jobs.sweep()
    assert published == [(job_id, "inspect")]


def test_two_sweeps_at_once_share_the_work(published: list[tuple[UUID, str]]) -> None:
    due, lost = [job_rows.queued() for _ in range(60)], [job_rows.claimed().job.id for _ in range(20)]
    for job_id in due:
        due_now(job_id)
    for job_id in lost:
        lose(job_id)
    start = threading.Barrier(4)

    def one(_: int) -> None:
        start.wait(10)
        jobs.sweep()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    jobs.sweep()
    assert sorted(job_id for job_id, _ in published) == sorted([*due, *lost])
    for job_id in lost:
        assert job_rows.types(job_id) == ["queued", "stage", "interrupted"]


def test_a_row_that_somebody_works_on_is_not_waited_for() -> None:
    busy, free = job_rows.queued(), job_rows.queued()
    due_now(busy)
    due_now(free)
    with engine().begin() as connection:
        connection.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": busy})
        assert [one.job_id for one in ask(sweep.due, 30)] == [free]
    assert [one.job_id for one in ask(sweep.due, 30)] == [busy]


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
def test_a_sweep_takes_no_more_than_its_batch(
    monkeypatch: pytest.MonkeyPatch, published: list[tuple[UUID, str]], *, analyzed: bool
) -> None:
    template = job_rows.queued()
    with autocommit() as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (id, owner_id, kind, title, status, step, admitted, republish_at, event_seq)
            SELECT gen_random_uuid(), owner_id, kind, title, status, step, TRUE, now() - interval '1 s', 0
            FROM jobs, generate_series(1, 1200) WHERE jobs.id = :id"""),
            {"id": template},
        )
        if analyzed:
            connection.execute(text("ANALYZE jobs"))
    counts = [len(ask(sweep.due, 30)) for _ in range(4)]
    assert counts == [sweep.BATCH, sweep.BATCH, 200, 0]


def test_a_job_of_a_capability_that_is_switched_off_does_not_stop_the_others(published: list[tuple[UUID, str]]) -> None:
    alien, renamed, ours = job_rows.queued("alien"), job_rows.queued(step="of_an_older_version"), job_rows.queued()
    for age, job_id in enumerate((ours, renamed, alien)):
        job_rows.change(job_id, f"republish_at = now() - interval '{age + 1} s'")
    jobs.sweep()
    assert published == [(ours, "inspect")]
    assert {job_rows.row(job_id)["status"] for job_id in (alien, renamed)} == {"queued"}


def test_what_the_broker_does_not_take_is_published_by_the_next_sweep(in_process: Stack) -> None:
    def messages() -> int:
        with redis.Redis.from_url(in_process.env["REDIS_URL"]) as connection:
            # a queue is a list for each priority
            return sum(int(connection.llen(name)) for name in connection.scan_iter("io*"))

    first = job_rows.queued()
    due_now(first)
    jobs.sweep()  # opens the connection that will break
    assert messages() == 1
    job_id = job_rows.queued()
    due_now(job_id)
    server = in_process.processes["redis"]
    server.stop()
    try:
        began = time.monotonic()
        jobs.sweep()
        took = time.monotonic() - began
    finally:
        server.start()
    assert took < 10, f"a sweep hung for {took:.1f} s on a broker that is away"
    assert job_rows.row(job_id)["status"] == "queued"
    deadline = time.monotonic() + 10
    while not accepts(server_port(in_process)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    jobs.sweep()
    assert messages() == 2, "the one that went with the old server is published again"


def server_port(stack: Stack) -> int:
    return int(stack.env["REDIS_URL"].rpartition(":")[2].partition("/")[0])

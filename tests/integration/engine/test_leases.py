"""Attempts that are interrupted, leases that are kept, lost and stolen: no effect without a claim that stands."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from domain.errors.inference import MlUnavailable
from domain.errors.jobs import StepFailed
from domain.errors.neighbours import DatabaseUnavailable
from domain.pipelines import Context, Done, JobInStep, Outcome, StepFunction
from storage.database import autocommit
from storage.jobs import transitions
from tests import job_rows
from tests.tiny_pipelines import (
    LEASE,
    ONE,
    SHORT,
    Run,
    done,
    failing,
    learns,
    retitle,
    with_effect,
)
from workers import engine as engine_module
from workers import leases

# ---------------------------------------------------------------- interruptions


def test_an_interrupted_attempt_keeps_its_number_and_can_be_had_at_once() -> None:
    def stopped(job: JobInStep, context: Context) -> Outcome:
        raise SystemExit

    run = Run(ONE, a=stopped)
    for _ in range(5):
        with pytest.raises(SystemExit):
            run.step("a")
    assert run.types == ["queued"] + ["stage", "interrupted"] * 5
    assert (run.row["attempt"], run.row["losses"], run.row["claim"]) == (1, 0, None)
    assert leases.heartbeat._holds == {}


def test_a_worker_stopped_while_it_commits_has_committed_nothing_and_lets_go() -> None:
    def stopping(connection: Connection) -> None:
        retitle(connection, run.job_id)
        raise SystemExit

    run = Run(ONE, a=lambda job, context: Done(effects=(stopping,)))
    with pytest.raises(SystemExit):
        run.step("a")
    assert (run.row["title"], run.row["claim"], run.types[-1]) == ("a.txt", None, "interrupted")


def test_a_worker_stopped_while_the_database_is_away_stops_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def away() -> Iterator[Connection]:
        raise DatabaseUnavailable
        yield  # type: ignore[unreachable]

    def stopped(job: JobInStep, context: Context) -> Outcome:
        monkeypatch.setattr(engine_module, "autocommit", away)
        raise SystemExit

    run = Run(ONE, a=stopped)
    with pytest.raises(SystemExit):
        run.step("a")


# ---------------------------------------------------------------- leases


def sweep_until(stop: threading.Event) -> None:
    while not stop.wait(0.05):
        with autocommit() as connection:
            connection.execute(
                text("UPDATE jobs SET claim = NULL, lease_until = NULL, losses = losses + 1 WHERE lease_until < now()")
            )


@contextmanager
def sweeping() -> Iterator[None]:
    """A sweep that looks for lost leases all the time."""
    stop = threading.Event()
    thread = threading.Thread(target=sweep_until, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_heartbeat_keeps_a_step_that_is_longer_than_its_lease() -> None:
    def long(job: JobInStep, context: Context) -> Outcome:
        until = time.monotonic() + 2 * LEASE
        while time.monotonic() < until:
            time.sleep(0.02)
            context.checkpoint()
        return Done()

    run = Run(SHORT, a=long, b=long)
    with sweeping():
        run.step("a")
    assert run.types == ["queued", "stage", "stage", "succeeded"]
    assert run.row["losses"] == 0


def test_effects_that_take_longer_than_a_lease_do_not_cost_the_next_step() -> None:
    def slow(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 1.5 * LEASE})

    run = Run(SHORT, a=lambda job, context: Done(effects=(slow,)), b=done)
    with sweeping():
        run.step("a")
    assert run.types == ["queued", "stage", "stage", "succeeded"]


def test_the_heartbeat_survives_what_it_did_not_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    extend = transitions.heartbeat

    def fails_once(connection: Connection, claims: list[UUID], lease: float) -> dict[UUID, bool]:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("the server is read-only")
        return extend(connection, claims, lease)

    monkeypatch.setattr(transitions, "heartbeat", fails_once)

    def long(job: JobInStep, context: Context) -> Outcome:
        assert failed.wait(15)
        time.sleep(1.5 * LEASE)
        return Done()

    run = Run(ONE, a=long)
    with sweeping():
        run.step("a")
    assert run.types == ["queued", "stage", "succeeded"]


def steal(job_id: UUID) -> None:
    """The lease runs out, the sweep takes it back, another worker has the step."""
    job_rows.change(job_id, "claim = NULL, lease_until = NULL, run_at = now()")
    job_rows.claim(job_id, "a", worker="thief")


@pytest.mark.parametrize(
    "end",
    [done, with_effect, failing(StepFailed()), failing(MlUnavailable(reason="x")), failing(ValueError("x"))],
    ids=["done", "effect", "failure", "passing fault", "crash"],
)
def test_a_step_whose_lease_was_lost_commits_nothing(monkeypatch: pytest.MonkeyPatch, end: StepFunction) -> None:
    monkeypatch.setattr(leases.heartbeat, "keep", lambda hold: None)

    def slept_through_it(job: JobInStep, context: Context) -> Outcome:
        steal(job.id)
        return end(job, context)

    run = Run(ONE, a=slept_through_it)
    assert run.step("a") is None
    assert run.types == ["queued", "stage", "stage"]
    assert (run.row["title"], run.row["claimed_by"], run.row["status"]) == ("a.txt", "thief", "processing")


def test_a_lease_stolen_between_the_effects_and_the_commit_undoes_them() -> None:
    def robbed(connection: Connection) -> None:
        connection.execute(text("INSERT INTO archives (job_id, summary) VALUES (:id, '{}')"), {"id": run.job_id})
        steal(run.job_id)

    run = Run(ONE, a=lambda job, context: Done(effects=(robbed,)))
    assert run.step("a") is None
    with autocommit() as connection:
        left = connection.execute(
            text("SELECT count(*) FROM archives WHERE job_id = :id"), {"id": run.job_id}
        ).scalar_one()
    assert left == 0
    assert run.row["claimed_by"] == "thief"


def test_a_step_that_has_lost_its_lease_leaves_at_its_next_checkpoint() -> None:
    run = Run(ONE, a=learns(lambda: steal(run.job_id)))
    run.step("a")
    assert run.types == ["queued", "stage", "stage"]

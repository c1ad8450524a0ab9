"""What the engine promises every step: going on, handing over, waiting, and failures with a name."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Connection, text

from domain.errors.inference import MlUnavailable
from domain.errors.jobs import StepFailed
from domain.errors.neighbours import DatabaseUnavailable
from domain.pipelines import Context, Done, JobInStep, Outcome, ResultFile, Step, Wait
from storage.database import autocommit
from storage.jobs import transitions
from tests import job_rows
from tests.tiny_pipelines import ONE, QUICK, SHORT, TWO, Run, done, failing, pipeline
from workers import leases

# ---------------------------------------------------------------- going on, handing over, waiting


def test_a_short_step_is_done_by_the_same_worker_at_once() -> None:
    run = Run(SHORT, a=done, b=done)
    assert run.step("a") is None
    assert run.went_on == 1
    assert run.types == ["queued", "stage", "stage", "succeeded"]
    assert job_rows.attempts(run.job_id) == [("a", 1, "done", "tester"), ("b", 1, "done", "tester")]


def test_a_step_that_may_be_long_is_handed_over() -> None:
    run = Run(TWO, a=done, b=done)
    assert run.step("a") == "b"
    assert (run.went_on, run.types) == (0, ["queued", "stage", "handed_over"])
    assert run.row["progress"] == 50
    assert run.step("b") is None
    assert (run.row["status"], run.row["progress"]) == ("succeeded", 100)


def test_a_second_delivery_finds_nothing_to_do() -> None:
    ran: list[str] = []

    def count(job: JobInStep, context: Context) -> Outcome:
        ran.append(job.step)
        return Done()

    run = Run(TWO, a=count, b=count)
    for name in ("b", "a", "a", "b", "b", "a"):
        run.step(name)
    assert ran == ["a", "b"]


def test_what_a_step_learns_of_its_result_the_next_one_sees() -> None:
    result = ResultFile(key="results/x", name="x.xlsx", size=3)
    seen: list[tuple[str, int, ResultFile | None]] = []

    def look(job: JobInStep, context: Context) -> Outcome:
        seen.append((job.step, job.attempt, job.result))
        return Done()

    run = Run(SHORT, a=lambda job, context: Done(result=result), b=look)
    run.step("a")
    assert seen == [("b", 1, result)]


WAITS = pipeline(
    Step(name="a", queue="io", until=10, overdue=MlUnavailable),
    Step(name="b", queue="io", until=90),
    Step(name="c", queue="io", until=100),
)


def tell(job_id: UUID) -> transitions.Moved | None:
    with autocommit() as connection:
        return transitions.signal(
            connection, job_id, {"outcome": "succeeded"}, waits="a", until=10, republish=30, result=None
        )


def test_a_waiting_job_holds_no_worker_and_goes_on_when_told() -> None:
    run = Run(WAITS, a=lambda job, context: Wait(seconds=60), b=done, c=done)
    assert run.step("a") is None
    assert (run.row["awaiting"], run.row["claim"]) == (True, None)
    assert run.step("b") is None, "not before it is told"
    assert run.types == ["queued", "stage", "waiting"]
    tell(run.job_id)
    assert run.step("b") == "c"


def test_a_job_told_early_goes_on_and_says_what_has_to_be_sent() -> None:
    """The chain that carried the waiting step ends there; what follows must be published anew."""

    def told_meanwhile(job: JobInStep, context: Context) -> Outcome:
        tell(job.id)
        return Wait(seconds=60)

    signals: list[Any] = []

    def look(job: JobInStep, context: Context) -> Outcome:
        signals.append(job.signal)
        return Done()

    run = Run(WAITS, a=told_meanwhile, b=look, c=done)
    assert run.step("a") == "c"
    assert signals == [{"outcome": "succeeded"}]
    assert run.types == ["queued", "stage", "resumed", "stage", "handed_over"]


def test_waiting_after_the_last_step_is_a_failure_with_a_name() -> None:
    run = Run(ONE, a=lambda job, context: Wait(seconds=60))
    run.step("a")
    assert (run.row["status"], run.row["error_code"]) == ("failed", "step_failed")


# ---------------------------------------------------------------- failures


def test_a_passing_fault_is_retried_until_the_attempts_are_used_up() -> None:
    run = Run(ONE, a=failing(MlUnavailable(reason="status 500")))
    for number in (1, 2, 3):
        assert run.row["attempt"] == number
        assert run.step("a") is None
    assert run.types == ["queued", "stage", "retrying", "stage", "retrying", "stage", "failed"]
    assert [attempt[1:3] for attempt in job_rows.attempts(run.job_id)] == [
        (1, "retrying"),
        (2, "retrying"),
        (3, "failed"),
    ]
    assert (run.row["error_code"], run.row["error_retryable"], run.row["attempt"]) == ("ml_unavailable", True, 3)


def test_a_retry_waits_as_long_as_it_was_asked_to() -> None:
    run = Run(ONE, a=failing(MlUnavailable(reason="status 429", retry_after=40.0)))
    run.step("a")
    assert 35 < (run.row["run_at"] - datetime.now(UTC)).total_seconds() <= 40
    assert run.row["republish_at"] == run.row["run_at"]
    run.step("a")
    assert run.types == ["queued", "stage", "retrying"], "not before its time"


@pytest.mark.parametrize(("retry_after", "status"), [(50.0, "processing"), (70.0, "failed")])
def test_no_attempt_begins_after_the_retries_deadline(retry_after: float, status: str) -> None:
    patient = msgspec.structs.replace(QUICK, attempts=9, deadline_seconds=3660.0)
    run = Run(
        pipeline(Step(name="a", queue="io", until=100, retry=patient)),
        a=failing(MlUnavailable(reason="status 429", retry_after=retry_after)),
    )
    run.step("a")
    assert run.row["status"] == "processing", "the first may be tried again"
    job_rows.change(run.job_id, "run_at = now(), republish_at = now()")
    with autocommit() as connection:
        connection.execute(text("UPDATE job_attempts SET started_at = started_at - interval '1 h'"))
    run.step("a")
    assert run.row["status"] == status
    assert run.row["error_code"] == (None if status == "processing" else "ml_unavailable")


def test_a_lasting_fault_fails_at_once() -> None:
    run = Run(ONE, a=failing(StepFailed()))
    run.step("a")
    assert (run.row["error_code"], run.row["attempt"]) == ("step_failed", 1)


def named_without_internals(run: Run) -> None:
    assert (run.row["status"], run.row["error_code"], run.row["error_stage"]) == ("failed", "step_failed", "a")
    assert "secret" not in f"{run.row} {job_rows.record(run.job_id)}"


def test_an_unknown_exception_is_a_failed_step_and_tells_no_internals() -> None:
    run = Run(ONE, a=failing(ValueError("secret internals")))
    run.step("a")
    named_without_internals(run)


def broken(connection: Connection) -> None:
    connection.execute(text("UPDATE jobs SET title = 'changed' WHERE kind = 'tiny'"))
    connection.execute(text("SELECT CAST(:text AS jsonb)"), {"text": '"secret \\u0000"'})  # what jsonb cannot hold


def test_an_effect_that_cannot_be_committed_fails_the_job_at_once_and_leaves_nothing() -> None:
    """Without a name for it the step would be lost three times over and end as `worker_lost`."""
    run = Run(ONE, a=lambda job, context: Done(effects=(broken,)))
    run.step("a")
    named_without_internals(run)
    assert run.row["title"] == "a.txt"


def test_a_database_that_is_away_leaves_the_step_to_the_sweep() -> None:
    run = Run(ONE, a=failing(DatabaseUnavailable()))
    with pytest.raises(DatabaseUnavailable):
        run.step("a")
    assert (run.row["status"], run.types) == ("processing", ["queued", "stage"])
    assert leases.heartbeat._holds == {}

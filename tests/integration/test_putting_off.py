"""Steps that put themselves off, that end the job for good, and that go and ask when nobody says anything."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from domain.errors.inference import MlTimeout, MlUnavailable
from domain.pipelines import Context, Done, Failed, JobInStep, Later, Outcome, Step, Wait
from migrations.__main__ import upgrade
from stack.up import Stack
from storage.database import autocommit
from storage.jobs import sweep, transitions
from tests import job_rows
from tests.tiny_pipelines import ONE, QUICK, Run, done, pipeline

ASKING = pipeline(
    Step(name="a", queue="io", until=60, overdue=MlTimeout, asks="q"),
    Step(name="q", queue="io", until=60, aside=True, retry=QUICK),
    Step(name="b", queue="io", until=100),
)


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


def later(job: JobInStep, context: Context) -> Outcome:
    return Later(seconds=50, message="not now", circuit="ml", error=MlUnavailable(reason="status 503"))


def wait(job: JobInStep, context: Context) -> Outcome:
    return Wait(seconds=60)


def for_good(job: JobInStep, context: Context) -> Outcome:
    return Failed(error=MlTimeout())


def due_now(job_id: UUID) -> None:
    job_rows.change(job_id, "run_at = now(), republish_at = now()")


def overdue(job_id: UUID) -> int:
    job_rows.change(job_id, "deadline_at = now() - interval '1 s'")
    with autocommit() as connection:
        return sweep.ask_overdue(connection, "tiny", next_step="b", asks="q")


def tell(job_id: UUID, outcome: str = "succeeded") -> transitions.Moved | None:
    content: dict[str, Any] = {"outcome": outcome}
    with autocommit() as connection:
        if outcome == "failed":
            return transitions.fail_signalled(connection, job_id, content, MlTimeout(), waits="a", asks="q")
        return transitions.signal(connection, job_id, content, waits="a", asks="q", until=60, republish=30, result=None)


# ---------------------------------------------------------------- later


def test_a_step_put_off_is_let_go_and_stays_the_same_attempt() -> None:
    run = Run(ONE, a=later)
    for _ in range(5):
        assert run.step("a") is None
        assert 45 < (run.row["run_at"] - datetime.now(UTC)).total_seconds() <= 50
        assert run.row["republish_at"] == run.row["run_at"]
        assert (run.row["attempt"], run.row["losses"], run.row["claim"]) == (1, 0, None)
        assert (run.row["circuit"], run.row["message"], run.row["status"]) == ("ml", "not now", "processing")
        due_now(run.job_id)
    assert run.types == ["queued"] + ["stage", "postponed"] * 5
    assert job_rows.attempts(run.job_id) == [("a", 1, "postponed", "tester")] * 5


def test_how_long_it_has_been_put_off_is_counted_from_the_first_time() -> None:
    delays: list[float] = []

    def look(job: JobInStep, context: Context) -> Outcome:
        delays.append(job.delayed)
        return later(job, context)

    run = Run(ONE, a=look)
    run.step("a")
    for seconds in (30, 40):
        job_rows.change(run.job_id, f"delayed_since = delayed_since - interval '{seconds} s'")
        due_now(run.job_id)
        run.step("a")
    assert [round(delay) for delay in delays] == [0, 30, 70]


def test_the_next_step_begins_without_a_delay() -> None:
    run = Run(pipeline(Step(name="a", queue="io", until=50), Step(name="b", queue="io", until=100)), a=later, b=done)
    run.step("a")
    due_now(run.job_id)
    run.engine._steps["a"] = done
    assert run.step("a") == "b"
    assert run.row["delayed_since"] is None


def test_a_job_cancelled_meanwhile_is_not_put_off() -> None:
    def cancelled(job: JobInStep, context: Context) -> Outcome:
        job_rows.change(job.id, "cancel_requested_at = now()")
        return later(job, context)

    run = Run(ONE, a=cancelled)
    run.step("a")
    assert run.row["status"] == "cancelled"


def test_failed_is_for_good_however_many_attempts_are_left() -> None:
    run = Run(ONE, a=for_good)
    run.step("a")
    assert (run.row["status"], run.row["error_code"], run.row["error_retryable"]) == ("failed", "ml_timeout", True)


# ---------------------------------------------------------------- asking


def test_a_missed_deadline_is_asked_about_and_the_answer_counts() -> None:
    run = Run(ASKING, a=wait, q=done, b=done)
    run.step("a")
    assert run.step("q") is None, "not before the deadline"
    assert overdue(run.job_id) == 1
    assert overdue(run.job_id) == 0
    assert run.step("q") == "b"
    run.step("b")
    assert run.row["status"] == "succeeded"
    assert run.types == ["queued", "stage", "waiting", "stage", "handed_over", "stage", "succeeded"]


def test_what_is_still_at_it_waits_again_and_the_time_is_counted_on() -> None:
    delays: list[float] = []

    def ask(job: JobInStep, context: Context) -> Outcome:
        delays.append(job.delayed)
        return Wait(seconds=60)

    run = Run(ASKING, a=wait, q=ask, b=done)
    run.step("a")
    for _ in range(3):
        job_rows.change(run.job_id, "delayed_since = delayed_since - interval '20 s'")
        assert overdue(run.job_id) == 1
        run.step("q")
        assert (run.row["awaiting"], run.row["step"], run.row["stage"]) == (True, "b", "waiting")
    assert [round(delay) for delay in delays] == [20, 40, 60]
    tell(run.job_id)
    assert run.step("b") is None
    assert run.row["status"] == "succeeded"


@pytest.mark.parametrize("when", ["before it is asked", "while it is asked", "while it is asked in vain"])
def test_what_is_told_at_the_last_moment_counts(when: str) -> None:
    def ask(job: JobInStep, context: Context) -> Outcome:
        if job.signal is not None:
            return Done()
        assert when != "before it is asked"
        assert tell(job.id)
        return for_good(job, context) if when.endswith("vain") else wait(job, context)

    run = Run(ASKING, a=wait, q=ask, b=done)
    run.step("a")
    overdue(run.job_id)
    if when == "before it is asked":
        moved = tell(run.job_id)
        assert moved
        assert moved.step == "q", "which finds the signal"
    following = run.step("q")
    if when.endswith("vain"):
        assert run.types[-1] == "interrupted"
        following = run.step("q")
    if following:
        run.step(following)
    assert run.row["status"] == "succeeded", run.types


def test_a_failure_told_while_it_is_asked_counts() -> None:
    def ask(job: JobInStep, context: Context) -> Outcome:
        assert tell(job.id, "failed")
        return Done()

    run = Run(ASKING, a=wait, q=ask, b=done)
    run.step("a")
    overdue(run.job_id)
    run.step("q")
    assert (run.row["status"], run.types[-1]) == ("failed", "failed")


def test_a_step_that_fails_although_its_signal_has_come_is_done_again_to_find_it() -> None:
    """The answer to the submission was lost on its last attempt, but the service had accepted it and is done."""

    def submit(job: JobInStep, context: Context) -> Outcome:
        if job.signal is not None:
            return Done()
        tell(job.id)
        return Failed(error=MlUnavailable(reason="ReadTimeout"))

    run = Run(ASKING, a=submit, q=done, b=done)
    run.step("a")
    assert (run.row["status"], run.types[-1]) == ("processing", "interrupted")
    assert run.step("a") == "b"


def test_a_cancelled_job_is_not_asked_about() -> None:
    run = Run(ASKING, a=wait, q=done, b=done)
    run.step("a")
    job_rows.change(run.job_id, "cancel_requested_at = now()")
    assert overdue(run.job_id) == 0

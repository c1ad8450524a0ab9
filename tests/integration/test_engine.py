"""What the engine promises every step, shown with pipelines of its own."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis
from sqlalchemy import Connection, text

from domain.errors.inference import MlUnavailable
from domain.errors.jobs import StepFailed
from domain.errors.neighbours import DatabaseUnavailable
from domain.pipelines import Context, Done, JobInStep, Outcome, Pipeline, ResultFile, Retry, Step, StepFunction, Wait
from domain.settings import Settings
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import events
from storage.configuration import settings
from storage.database import autocommit
from storage.jobs import transitions
from tests import job_rows
from workers import engine as engine_module
from workers import leases
from workers.engine import Engine

LEASE = 0.6


@pytest.fixture(scope="module", autouse=True)
def short_leases(in_process: Stack) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASE_SECONDS", str(LEASE))
        settings.cache_clear()
        patch.setattr(leases, "heartbeat", leases.Heartbeat())
        upgrade()
        yield


def no_params(ordered: Mapping[str, Any], config: Settings) -> dict[str, Any]:
    return dict(ordered)


def pipeline(*steps: Step) -> Pipeline:
    return Pipeline(name="tiny", steps=steps, read_params=no_params)


QUICK = Retry(attempts=3, base_seconds=0.0, cap_seconds=0.0)
ONE = pipeline(Step(name="a", queue="io", until=100, retry=QUICK))
TWO = pipeline(Step(name="a", queue="io", until=50), Step(name="b", queue="io", until=100))
SHORT = pipeline(Step(name="a", queue="io", until=50), Step(name="b", queue="io", until=100, short=lambda job: True))


class Run:
    """One job of a pipeline, and what became of it."""

    def __init__(self, line: Pipeline, **steps: StepFunction) -> None:
        self.engine = Engine({line.name: line}, steps, worker="tester")
        self.job_id = job_rows.queued("tiny", "a")
        self.went_on = 0

    def step(self, name: str) -> str | None:
        def going_on() -> None:
            self.went_on += 1

        due = self.engine.run(self.job_id, name, going_on)
        return due.step if due else None

    @property
    def row(self) -> dict[str, Any]:
        return job_rows.row(self.job_id)

    @property
    def types(self) -> list[str]:
        return job_rows.types(self.job_id)


def done(job: JobInStep, context: Context) -> Outcome:
    return Done()


def retitle(connection: Connection, job_id: UUID) -> None:
    connection.execute(text("UPDATE jobs SET title = title || '!' WHERE id = :id"), {"id": job_id})


def with_effect(job: JobInStep, context: Context) -> Outcome:
    return Done(effects=(lambda connection: retitle(connection, job.id),))


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


def failing(error: Exception) -> StepFunction:
    def step(job: JobInStep, context: Context) -> Outcome:
        raise error

    return step


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
        until = time.monotonic() + 3 * LEASE
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
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 2 * LEASE})

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
        assert failed.wait(5)
        time.sleep(2 * LEASE)
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


def learns(run_on: Callable[[], None]) -> StepFunction:
    """A step that goes on until a checkpoint ends it."""

    def step(job: JobInStep, context: Context) -> Outcome:
        run_on()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            context.checkpoint()
            time.sleep(0.01)
        raise AssertionError("no checkpoint has ended it")

    return step


def test_a_step_that_has_lost_its_lease_leaves_at_its_next_checkpoint() -> None:
    run = Run(ONE, a=learns(lambda: steal(run.job_id)))
    run.step("a")
    assert run.types == ["queued", "stage", "stage"]


# ---------------------------------------------------------------- cancelling


def request_cancel(job_id: UUID) -> None:
    job_rows.change(job_id, "cancel_requested_at = now()")


def test_a_running_step_is_cancelled_at_its_next_checkpoint() -> None:
    run = Run(TWO, a=learns(lambda: request_cancel(run.job_id)), b=done)
    began = time.monotonic()
    assert run.step("a") is None
    assert time.monotonic() - began < 2 * LEASE
    assert (run.row["status"], run.types) == ("cancelled", ["queued", "stage", "cancelled"])


@pytest.mark.parametrize("line", [ONE, TWO, SHORT], ids=["last", "before another", "before a short one"])
@pytest.mark.parametrize(
    "end", [done, with_effect, failing(MlUnavailable(reason="x"))], ids=["done", "effect", "fault"]
)
def test_a_step_without_checkpoints_is_cancelled_at_its_end_and_has_no_effect(
    line: Pipeline, end: StepFunction
) -> None:
    def ends_after_it(job: JobInStep, context: Context) -> Outcome:
        request_cancel(job.id)
        return end(job, context)

    run = Run(line, a=ends_after_it, b=done)
    assert run.step("a") is None
    assert (run.row["status"], run.types) == ("cancelled", ["queued", "stage", "cancelled"])
    assert run.row["title"] == "a.txt"


# ---------------------------------------------------------------- progress


@contextmanager
def listening(job_id: UUID) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What is announced about a job."""
    client = redis.Redis.from_url(settings().redis_url)
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(events.channel(job_id))
        assert pubsub.get_message(timeout=2)["type"] == "subscribe"

        def heard() -> list[dict[str, Any]]:
            messages = []
            while message := pubsub.get_message(timeout=0.2):
                messages.append(msgspec.json.decode(message["data"]))
            return messages

        yield heard
    client.close()


def reporting(job: JobInStep, context: Context) -> Outcome:
    until = (began := time.monotonic()) + 0.8
    while (now := time.monotonic()) < until:
        context.progress(now - began, 0.8, "on the way")
        time.sleep(0.001)
    return Done()


def test_progress_is_coalesced_and_announced_within_the_part_of_its_step() -> None:
    run = Run(TWO, a=reporting, b=reporting)
    with listening(run.job_id) as heard:
        run.step("a")
        run.step("b")
        announced = heard()
    live = [event for event in announced if event["type"] == "progress"]
    assert 4 <= len(live) <= 18, "some hundred reports, ten announcements a second"
    percents = [event["data"]["progress"] for event in live]
    assert percents == sorted(percents)
    for event in live:
        low, high = (0, 50) if event["data"]["stage"] == "a" else (50, 100)
        assert low <= event["data"]["progress"] <= high
        assert "seq" not in event
    stored = [event["seq"] for event in announced if "seq" in event]
    assert stored == [2, 3, 4, 5]
    assert len(run.types) == 5, "none of it is stored one by one"


def test_a_pace_that_has_been_watched_says_how_long_the_step_goes_on() -> None:
    def steadily(job: JobInStep, context: Context) -> Outcome:
        began = time.monotonic()
        while (now := time.monotonic() - began) < 1.6:
            context.progress(now, 2.0)
            time.sleep(0.01)
        return Done()

    def in_parts(job: JobInStep, context: Context) -> Outcome:
        began = time.monotonic()
        while (now := time.monotonic() - began) < 1.3:
            context.progress(now, 2.0, part=(1, 2))
            time.sleep(0.01)
        return Done()

    run = Run(TWO, a=steadily, b=in_parts)
    with listening(run.job_id) as heard:
        run.step("a")
        first = [event["data"] for event in heard() if event["type"] == "progress"]
        run.step("b")
        second = [event["data"] for event in heard() if event["type"] == "progress"]
    told = [data["eta_seconds"] for data in first if "eta_seconds" in data]
    assert told
    assert len(told) < len(first), "not before it was watched for a second"
    assert set(told) == {1}, "0.4 to 0.9 seconds, rounded up"
    assert second
    assert not [data for data in second if "eta_seconds" in data], "nobody knows the pace of the second part"
    assert max(data["progress"] for data in second) < 75


def test_a_short_step_costs_no_statement_for_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    def briefly(job: JobInStep, context: Context) -> Outcome:
        for done in range(1000):
            context.progress(done, 1000)
        return Done()

    asked: list[object] = []
    monkeypatch.setattr("workers.progress.autocommit", lambda: asked.append(1))
    run = Run(ONE, a=briefly)
    run.step("a")
    assert (run.row["status"], asked) == ("succeeded", [])


def test_an_attempt_done_again_does_not_announce_less_than_was_reached() -> None:
    run = Run(ONE, a=reporting)
    job_rows.change(run.job_id, "progress = 70")
    with listening(run.job_id) as heard:
        run.step("a")
        percents = [event["data"]["progress"] for event in heard() if event["type"] == "progress"]
    assert percents
    assert min(percents) >= 70


@pytest.mark.parametrize(("given", "total"), [(5, 0), (-1, 10), (99, 10), (0, -1)])
def test_a_nonsensical_report_does_no_harm(given: float, total: float) -> None:
    def report(job: JobInStep, context: Context) -> Outcome:
        time.sleep(0.12)
        context.progress(given, total)
        return Done()

    run = Run(ONE, a=report)
    run.step("a")
    assert run.row["status"] == "succeeded"

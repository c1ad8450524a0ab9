"""Every move of a job happens once, under the claim that stands, and leaves a record without gaps."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import Connection, text

from domain.errors.inference import MlFailed, MlUnavailable
from domain.errors.jobs import StepFailed
from domain.identity import new_id
from domain.pipelines import ResultFile
from migrations.__main__ import upgrade
from stack.up import Stack
from storage.database import autocommit, transaction
from storage.jobs import transitions, views
from storage.jobs.transitions import Claim, Moved
from tests import job_rows

RESULT = ResultFile(key="results/x/1", name="x.xlsx", size=7)
UNAVAILABLE = MlUnavailable(reason="status 500")

advance = partial(transitions.advance, next_step="submit", until=10, seconds=60, message="on", result=None)
hand_over = partial(transitions.hand_over, next_step="submit", until=10, seconds=60, message="over", result=None)
wait = partial(transitions.wait, next_step="parse", seconds=60, lease=60, message="waits")
succeed = partial(transitions.succeed, message="well", result=None)
retry = partial(transitions.retry, error=UNAVAILABLE, delay=30)
fail = partial(transitions.fail, error=StepFailed())
signal = partial(transitions.signal, waits="submit", until=80, republish=30, result=RESULT)

Move = Callable[[Connection, Claim], Moved | None]
MOVES: dict[str, Move] = {
    "advance": advance,
    "hand_over": hand_over,
    "wait": wait,
    "succeed": succeed,
    "retry": retry,
    "fail": fail,
    "interrupt": transitions.interrupt,
}
EVENTS = {
    "advance": "stage",
    "hand_over": "handed_over",
    "wait": "waiting",
    "succeed": "succeeded",
    "retry": "retrying",
    "fail": "failed",
    "interrupt": "interrupted",
}
OUTCOMES = dict.fromkeys(("advance", "hand_over", "wait", "succeed"), "done") | {
    "retry": "retrying",
    "fail": "failed",
    "interrupt": "interrupted",
}


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


def do(move: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with autocommit() as connection:
        return move(connection, *args, **kwargs)


def everything(job_id: UUID) -> tuple[Any, ...]:
    return job_rows.row(job_id), job_rows.record(job_id), job_rows.attempts(job_id)


def stolen(claim: Claim) -> Claim:
    """The same job, by now held by somebody else."""
    job_rows.change(claim.job.id, "claim = NULL, lease_until = NULL, run_at = now()")
    return job_rows.claim(claim.job.id, claim.job.step, worker="thief")


# ---------------------------------------------------------------- under a claim


@pytest.mark.parametrize("name", MOVES)
def test_a_move_under_the_claim_is_one_event_and_one_attempt(name: str) -> None:
    claim = job_rows.claimed()
    moved = do(MOVES[name], claim)
    assert (moved.event.type, moved.event.seq) == (EVENTS[name], 3)
    assert job_rows.record(claim.job.id)[-1] == moved.event
    assert job_rows.types(claim.job.id) == ["queued", "stage", EVENTS[name]]
    assert job_rows.attempts(claim.job.id) == [("inspect", 1, OUTCOMES[name], "w1")]
    assert moved.held == (name == "advance") == (job_rows.row(claim.job.id)["claim"] is not None)


@pytest.mark.parametrize("name", [*MOVES, "cancel"])
def test_a_stale_claim_changes_nothing(name: str) -> None:
    claim = job_rows.claimed()
    stolen(claim)
    if name == "cancel":
        job_rows.change(claim.job.id, "cancel_requested_at = now()")
    before = everything(claim.job.id)
    assert do({**MOVES, "cancel": transitions.cancel}[name], claim) is None
    assert everything(claim.job.id) == before


def test_a_stale_claim_neither_reports_progress_nor_lives_on() -> None:
    claim = job_rows.claimed()
    holder = stolen(claim)
    before = everything(claim.job.id)
    assert do(transitions.progress, claim, 50, "half") is None
    assert everything(claim.job.id) == before
    assert do(transitions.heartbeat, [claim.token, holder.token], 60) == {holder.token: False}


@pytest.mark.parametrize("first", ["advance", "hand_over", "wait"])
@pytest.mark.parametrize("second", MOVES)
def test_a_step_is_ended_once_even_by_the_worker_that_goes_straight_on(first: str, second: str) -> None:
    claim = job_rows.claimed()
    assert do(MOVES[first], claim)
    before = everything(claim.job.id)
    assert do(MOVES[second], claim) is None
    assert everything(claim.job.id) == before


@pytest.mark.parametrize("name", ["advance", "hand_over", "wait", "succeed", "retry"])
def test_a_requested_cancellation_comes_before_every_move_onwards(name: str) -> None:
    claim = job_rows.claimed()
    job_rows.change(claim.job.id, "cancel_requested_at = now()")
    before = everything(claim.job.id)
    assert do(MOVES[name], claim) is None
    assert everything(claim.job.id) == before
    moved = do(transitions.cancel, claim)
    assert moved.event.type == "cancelled"
    row = job_rows.row(claim.job.id)
    assert (row["status"], row["claim"], row["step"]) == ("cancelled", None, None)
    assert job_rows.attempts(claim.job.id) == [("inspect", 1, "cancelled", "w1")]


def test_nothing_is_cancelled_unasked() -> None:
    claim = job_rows.claimed()
    assert do(transitions.cancel, claim) is None
    assert job_rows.row(claim.job.id)["status"] == "processing"


def test_the_heartbeat_tells_of_a_requested_cancellation() -> None:
    claim = job_rows.claimed()
    job_rows.change(claim.job.id, "cancel_requested_at = now()")
    assert do(transitions.heartbeat, [claim.token], 60) == {claim.token: True}


# ---------------------------------------------------------------- claiming


@pytest.mark.parametrize(
    "sets",
    [
        "run_at = now() + interval '1 minute'",
        "cancel_requested_at = now()",
        "step = 'submit'",
        "status = 'failed', step = NULL, completed_at = now(), error_code = 'x'",
    ],
    ids=["not yet", "cancelled", "another step", "final"],
)
def test_a_step_that_is_not_to_be_had_is_not_claimed(sets: str) -> None:
    job_id = job_rows.queued()
    job_rows.change(job_id, sets)
    before = everything(job_id)
    assert do(transitions.claim, job_id, "inspect", "w1", 60) is None
    assert everything(job_id) == before


def test_a_waiting_job_and_an_unknown_one_are_not_claimed() -> None:
    claim = job_rows.claimed(step="submit")
    do(wait, claim)
    assert do(transitions.claim, claim.job.id, "parse", "w1", 60) is None
    assert do(transitions.claim, new_id(), "inspect", "w1", 60) is None


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What these answer, each in a thread of its own, all begun in the same moment."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        barrier.wait(10)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def test_of_workers_that_claim_at_once_exactly_one_gets_it() -> None:
    for _ in range(15):
        job_id = job_rows.queued()
        found = at_once([partial(do, transitions.claim, job_id, "inspect", f"w{n}", 60) for n in range(6)])
        assert sum(claim is not None for claim in found) == 1
        assert job_rows.types(job_id) == ["queued", "stage"]


def test_the_record_has_no_gap_when_everybody_moves_at_once() -> None:
    """Worker, heartbeat, ML service and a second delivery, all at the same job."""
    for _ in range(15):
        claim = job_rows.claimed(step="submit")
        job_id = claim.job.id
        works: list[Callable[[], Any]] = [
            partial(do, wait, claim),
            partial(do, wait, claim),
            partial(do, signal, job_id, {"outcome": "succeeded"}),
            partial(do, signal, job_id, {"outcome": "succeeded"}),
            partial(do, transitions.heartbeat, [claim.token], 60),
            partial(do, transitions.remote_progress, job_id, 30, None, waits="submit"),
        ]
        moved = at_once(works)
        assert sum(one is not None for one in moved[:2]) == 1
        assert sum(one is not None for one in moved[2:4]) == 1
        assert job_rows.types(job_id) in (
            ["queued", "stage", "waiting", "resumed"],  # in time
            ["queued", "stage", "resumed", "stage"],  # early: the worker goes straight on
        )
        row = job_rows.row(job_id)
        assert (row["step"], row["awaiting"]) == ("parse", False)


# ---------------------------------------------------------------- what ends the waiting


def submitted(*, begun: str) -> Claim:
    """A job whose `submit` was begun; ``begun`` says how far it is when the ML service calls back."""
    claim = job_rows.claimed(step="submit")
    moves: dict[str, Callable[[], Any]] = {
        "held": lambda: None,
        "waiting": lambda: do(wait, claim),
        "lost": lambda: job_rows.change(claim.job.id, "claim = NULL, lease_until = NULL"),
        "interrupted": lambda: do(transitions.interrupt, claim),
        "to be retried": lambda: do(retry, claim),
    }
    moves[begun]()
    return claim


BEGUN = ["held", "waiting", "lost", "interrupted", "to be retried"]


@pytest.mark.parametrize("begun", BEGUN)
def test_a_signal_counts_from_the_moment_the_step_has_begun(begun: str) -> None:
    job_id = submitted(begun=begun).job.id
    moved = do(signal, job_id, {"outcome": "succeeded"})
    assert (moved.event.type, moved.result, moved.held) == ("resumed", RESULT, begun == "held")
    assert do(signal, job_id, {"outcome": "failed"}) is None, "only the first one counts"
    row = job_rows.row(job_id)
    assert (row["signal"], row["awaiting"], row["progress"]) == ({"outcome": "succeeded"}, False, 80)
    if begun != "held":  # it can be claimed at once, whatever delay there was
        claim = job_rows.claim(job_id, row["step"])
        assert claim.job.signal == {"outcome": "succeeded"}
        assert claim.job.result == RESULT


def test_a_signal_that_came_while_the_step_ran_lets_the_worker_go_straight_on() -> None:
    claim = job_rows.claimed(step="submit")
    do(signal, claim.job.id, {"outcome": "succeeded"})
    moved = do(wait, claim)
    assert (moved.held, moved.step, moved.event.type, moved.result) == (True, "parse", "stage", RESULT)
    assert do(transitions.heartbeat, [claim.token], 60) == {claim.token: False}
    assert do(succeed, claim) is None, "the step that waited is over"
    going_on = msgspec.structs.replace(claim, job=msgspec.structs.replace(claim.job, step="parse"))
    assert do(succeed, going_on) is not None


@pytest.mark.parametrize("begun", BEGUN)
def test_a_reported_failure_ends_the_job_from_the_moment_the_step_has_begun(begun: str) -> None:
    claim = submitted(begun=begun)
    error = MlFailed(reason="the scanner was upside down")
    moved = do(transitions.fail_signalled, claim.job.id, {"outcome": "failed"}, error, waits="submit")
    assert moved.event.type == "failed"
    row = job_rows.row(claim.job.id)
    assert (row["status"], row["error_code"], row["claim"]) == ("failed", "ml_failed", None)
    assert row["error_stage"] == ("waiting" if begun == "waiting" else "submit")
    before = everything(claim.job.id)
    for late in (partial(wait, claim=claim), partial(succeed, claim=claim), partial(fail, claim=claim)):
        assert do(late) is None
    assert do(signal, claim.job.id, {"outcome": "succeeded"}) is None
    assert everything(claim.job.id) == before


@pytest.mark.parametrize("standing", ["pending", "queued", "in the step before", "handed over", "in the step after"])
def test_nothing_can_be_signalled_before_the_step_has_begun_or_after_it(standing: str) -> None:
    job_id = job_rows.pending() if standing == "pending" else job_rows.queued()
    if standing in ("in the step before", "handed over"):
        claim = job_rows.claim(job_id)
        if standing == "handed over":
            do(hand_over, claim)
    if standing == "in the step after":
        claim = job_rows.claim(job_id)
        do(partial(advance, next_step="parse"), claim)
    before = everything(job_id)
    assert do(signal, job_id, {"outcome": "succeeded"}) is None
    assert do(transitions.fail_signalled, job_id, {}, StepFailed(), waits="submit") is None
    assert do(transitions.remote_progress, job_id, 50, None, waits="submit") is None
    assert everything(job_id) == before


# ---------------------------------------------------------------- progress


def test_progress_never_falls() -> None:
    claim = job_rows.claimed(step="submit")
    assert [do(transitions.progress, claim, percent, None) for percent in (20, 5, 40)] == [20, 20, 40]
    assert do(transitions.remote_progress, claim.job.id, 30, "slow", waits="submit")[1].data["progress"] == 40
    do(retry, claim)
    job_rows.change(claim.job.id, "run_at = now()")
    again = job_rows.claim(claim.job.id, "submit")
    assert do(transitions.progress, again, 12, None) == 40
    do(partial(advance, next_step="parse", until=10), again)
    assert job_rows.row(claim.job.id)["progress"] == 40


def test_live_progress_is_not_part_of_the_record() -> None:
    claim = job_rows.claimed(step="submit")
    do(wait, claim)
    owner_id, event, _ = do(transitions.remote_progress, claim.job.id, 45, "half", waits="submit")
    assert owner_id == claim.job.owner_id
    assert (event.seq, event.data["progress"], event.data["stage"]) == (None, 45, "waiting")
    assert job_rows.types(claim.job.id) == ["queued", "stage", "waiting"]


def eta(job_id: UUID) -> int | None:
    with autocommit() as connection:
        job = views.one(connection, job_id, None)
    assert job
    return job.eta_seconds


def reported(job_id: UUID, share: float) -> transitions.Reported:
    told = do(transitions.remote_progress, job_id, 10 + int(share * 70), None, waits="submit", share=share)
    assert isinstance(told, transitions.Reported)
    return told


def test_the_pace_of_reports_says_how_long_the_waiting_will_last_and_ends_with_it() -> None:
    claim = job_rows.claimed(step="submit")
    job_id = claim.job.id
    do(wait, claim)
    assert "eta_seconds" not in reported(job_id, 0.2).event.data, "one report is no pace"
    job_rows.change(job_id, "pace_since = now() - interval '10 s'")
    assert reported(job_id, 0.4).event.data["eta_seconds"] in (30, 31)
    assert eta(job_id) in (30, 31)
    assert reported(job_id, 0.6).event.data["eta_seconds"] in (10, 11), "the mean since the first one"
    assert "eta_seconds" not in reported(job_id, 0.1).event.data, "it has begun anew"
    assert eta(job_id) is None
    job_rows.change(job_id, "pace_since = now() - interval '10 s'")
    reported(job_id, 0.2)
    assert eta(job_id)
    do(signal, job_id, {"outcome": "succeeded"})
    assert eta(job_id) is None


def test_an_estimate_whose_time_is_up_is_none() -> None:
    claim = job_rows.claimed()
    do(transitions.progress, claim, 5, None, 7.2)
    assert eta(claim.job.id) in (7, 8)
    job_rows.change(claim.job.id, "eta_at = now() - interval '1 s'")
    assert eta(claim.job.id) is None
    do(transitions.progress, claim, 5, None, 7.2)
    do(advance, claim)
    assert eta(claim.job.id) is None, "the next stage has a pace of its own"


def test_reports_that_follow_closely_are_stored_and_not_told_each() -> None:
    claim = job_rows.claimed(step="submit")
    job_id = claim.job.id
    do(wait, claim)
    job_rows.change(job_id, "updated_at = now() - interval '0.2 s'")
    told = [reported(job_id, share / 1000) for share in range(200)]
    assert told[0].due
    span = (told[-1].event.at - told[0].event.at).total_seconds()
    assert sum(one.due for one in told) <= 1 + span / 0.1
    assert job_rows.row(job_id)["progress"] == 10 + int(0.199 * 70), "the row has the newest"


# ---------------------------------------------------------------- attempts and leases


def test_a_retry_counts_and_an_interruption_does_not() -> None:
    job_id = job_rows.queued()
    numbers = []
    for move in (retry, transitions.interrupt, retry):
        claim = job_rows.claim(job_id)
        numbers.append(claim.job.attempt)
        do(move, claim)
        job_rows.change(job_id, "run_at = now()")
    claim = job_rows.claim(job_id, worker="w2")
    do(advance, claim)
    assert numbers == [1, 2, 2]
    assert job_rows.attempts(job_id) == [
        ("inspect", 1, "retrying", "w1"),
        ("inspect", 2, "interrupted", "w1"),
        ("inspect", 2, "retrying", "w1"),
        ("inspect", 3, "done", "w2"),
    ]
    assert job_rows.row(job_id)["attempt"] == 1, "the next step begins anew"


def test_a_lease_counts_from_the_end_of_a_long_transaction() -> None:
    """now() stands still while effects are written: a lease from then could be over at its commit."""
    claim = job_rows.claimed(lease=60)
    with transaction() as connection:
        connection.execute(text("SELECT pg_sleep(0.6)"))
        assert transitions.advance(connection, claim, next_step="x", until=1, seconds=0.5, message=None, result=None)
    with autocommit() as connection:
        left = connection.execute(
            text("SELECT lease_until > clock_timestamp() FROM jobs WHERE id = :id"), {"id": claim.job.id}
        ).scalar_one()
    assert left


def test_a_move_is_undone_with_its_transaction() -> None:
    claim = job_rows.claimed()
    before = everything(claim.job.id)
    with transaction() as connection:
        assert advance(connection, claim)
        connection.rollback()
    assert everything(claim.job.id) == before

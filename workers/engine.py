"""The engine: what every step is promised, in one place.

A step is claimed with a lease, run, and ended by one statement (or one transaction, when it has effects) that checks
the claim still stands. Failures are retried, ended or left to the sweep here; steps know nothing of it. See
docs/architecture.md for the states and docs/errors.md for the codes.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from domain.errors import MillraceError
from domain.errors.jobs import StepFailed
from domain.errors.neighbours import DatabaseUnavailable, StorageUnavailable
from domain.jobs import Event, EventType
from domain.pipelines import Done, Failed, JobInStep, Later, Outcome, Pipeline, Retry, StepFunction, Wait
from storage import dispatch
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.events import announce
from storage.failpoints import reached
from storage.jobs import transitions
from storage.jobs.sweep import Due
from storage.jobs.transitions import Claim, Moved
from workers import leases, memory
from workers.leases import Hold
from workers.progress import StepContext
from workers.stops import Cancelled, ClaimGone

CLAIM_PATIENCE_SECONDS = 5.0  # while Postgres is away; then the message is given up, the sweep will send another
STORE_SECONDS = 30.0  # between two tries at most while the object storage is away
END_PATIENCE_SECONDS = 60.0  # what a step has done is worth waiting for, as long as nobody else has taken it over

T = TypeVar("T")
_log = structlog.get_logger()


class Engine:
    """Runs steps by name. ``steps`` maps a step's name to its function, ``worker`` names this process in the record."""

    def __init__(self, pipelines: dict[str, Pipeline], steps: dict[str, StepFunction], worker: str) -> None:
        self._pipelines = pipelines
        self._steps = steps
        self._worker = worker

    def run(self, job_id: UUID, step: str, going_on: Callable[[], None]) -> Due | None:
        """Do ``step`` of the job, and go straight on as far as the next steps are short.

        ``going_on`` is called once for each following step that is done here, so that the caller can take its message
        off the chain. Answers the step that another worker is to do now, None when there is nothing to send.
        """
        found = insist(lambda: self._claim(job_id, step), CLAIM_PATIENCE_SECONDS)
        if found is None:
            _log.debug("step_not_to_be_had", step=step)
            return None
        claim, event = found
        if claim.request_id:  # a message of the sweep does not carry it
            structlog.contextvars.bind_contextvars(request_id=claim.request_id)
        reached("step.claimed", job_id, step)
        hold = Hold(claim)
        leases.heartbeat.keep(hold)
        try:
            announce([(claim.job.owner_id, event)])
            while True:
                moved = self._attempt(hold)
                if moved is None or not moved.held:
                    return _after(moved)
                going_on()
                hold.claim = _next_claim(hold.claim, moved)
        except (SystemExit, KeyboardInterrupt):
            self._interrupt(hold.claim)
            raise
        except MemoryError:
            memory.run_out(hold.claim.job.step)
            raise
        finally:
            leases.heartbeat.drop(hold)

    def _claim(self, job_id: UUID, step: str) -> tuple[Claim, Event] | None:
        with autocommit() as connection:
            return transitions.claim(connection, job_id, step, self._worker, settings().lease_seconds)

    def _attempt(self, hold: Hold) -> Moved | None:
        """Run one attempt to its end; the move it ended with, None when the claim was gone."""
        claim = hold.claim
        began = time.perf_counter()
        hold.begin(self._pipelines[claim.job.kind].step(claim.job.step).seconds or settings().step_seconds)
        outcome = self._run_step(claim, hold)
        reached("outcome.before", claim.job.id, claim.job.step)
        moved = insist(lambda: self._end(claim, outcome), END_PATIENCE_SECONDS, lambda: hold.lost)
        reached("outcome.committed", claim.job.id, claim.job.step)
        if moved:
            announce([(moved.owner_id, moved.event)])
        reached("outcome.announced", claim.job.id, claim.job.step)
        failure = {"error": str(outcome), "code": outcome.code} if isinstance(outcome, MillraceError) else {}
        _log.info(
            "step_ended",
            outcome=moved.event.type if moved else "claim_gone",
            **failure,
            ms=round((time.perf_counter() - began) * 1000),
        )
        return moved

    def _run_step(self, claim: Claim, hold: Hold) -> Outcome | MillraceError | Cancelled | ClaimGone:
        job = claim.job
        context = StepContext(hold, self._pipelines[job.kind])
        structlog.contextvars.bind_contextvars(step=job.step, attempt=job.attempt)
        try:
            reached("step.running", job.id, job.step)
            return self._steps[job.step](job, context)
        except (Cancelled, ClaimGone) as stop:
            return stop
        except (DatabaseUnavailable, MemoryError):
            raise  # nothing can be recorded now: the lease runs out and the sweep hands the step to another worker
        except StorageUnavailable as error:
            return _later(job, error)
        except MillraceError as error:
            return error
        except Exception:
            _log.exception("step_crashed", step=job.step)
            return StepFailed()

    def _end(self, claim: Claim, outcome: Outcome | MillraceError | Cancelled | ClaimGone) -> Moved | None:
        match outcome:
            case ClaimGone():
                return None
            case Cancelled():
                with autocommit() as connection:
                    return transitions.cancel(connection, claim)
            case MillraceError() as error:
                return self._end_failed(claim, error)
            case Failed(error=error):
                return self._end_failed(claim, error, for_good=True)
            case Later():
                return _end_later(claim, outcome)
            case Done() | Wait():
                try:
                    return self._end_done(claim, outcome)
                except (DatabaseUnavailable, MemoryError):
                    raise
                except MillraceError as error:
                    return self._end_failed(claim, error)
                except Exception:
                    # e.g. a value Postgres cannot store: nothing of the step was committed, and it would happen again
                    _log.exception("step_not_committed", step=claim.job.step)
                    return self._end_failed(claim, StepFailed())

    def _end_done(self, claim: Claim, outcome: Done | Wait) -> Moved | None:
        if outcome.effects:
            moved = self._commit_effects(claim, outcome)
        else:
            with autocommit() as connection:
                moved = self._move(connection, claim, outcome)
        if moved is None:
            with autocommit() as connection:  # cancelled while it ran, or another worker's by now
                return transitions.cancel(connection, claim)
        return moved

    def _commit_effects(self, claim: Claim, outcome: Done | Wait) -> Moved | None:
        """Effects and move in one transaction; the move, which checks the claim, decides whether any of it happens."""
        with transaction() as connection:
            for effect in outcome.effects:
                effect(connection)
            reached("effects.written", claim.job.id, claim.job.step)
            moved = self._move(connection, claim, outcome)
            if moved is None:
                connection.rollback()
        return moved

    def _move(self, connection: Connection, claim: Claim, outcome: Done | Wait) -> Moved | None:
        job, config = claim.job, settings()
        pipeline = self._pipelines[job.kind]
        until, following = pipeline.step(job.step).until, pipeline.after(job.step)
        if isinstance(outcome, Wait):
            if following is None:
                raise StepFailed
            return transitions.wait(
                connection,
                claim,
                next_step=following.name,
                seconds=outcome.seconds,
                lease=config.lease_seconds,
                message=outcome.message,
                again=pipeline.step(job.step).aside,
            )
        if following is None:
            return transitions.succeed(connection, claim, message=outcome.message, result=outcome.result)
        ahead = replace(job, step=following.name, attempt=1, result=outcome.result or job.result)
        go_on = following.short(ahead)
        return (transitions.advance if go_on else transitions.hand_over)(
            connection,
            claim,
            next_step=following.name,
            until=until,
            seconds=config.lease_seconds if go_on else config.redispatch_seconds,
            message=outcome.message,
            result=outcome.result,
        )

    def _end_failed(self, claim: Claim, error: MillraceError, *, for_good: bool = False) -> Moved | None:
        step = self._pipelines[claim.job.kind].step(claim.job.step)
        policy = step.retry or _retry_of_settings()
        waits = step.overdue is not None or step.aside
        with autocommit() as connection:
            # the jitter spreads retries, it guards nothing
            delay = max(policy.delay(claim.job.attempt, random.random()), error.retry_after or 0)  # noqa: S311
            again = error.retryable and not for_good and claim.job.attempt < policy.attempts
            if again and transitions.failing_for(connection, claim) + delay <= policy.deadline_seconds:
                moved = transitions.retry(connection, claim, error, delay)
            else:
                moved = transitions.fail(connection, claim, error, unless_signalled=waits)
            moved = moved or transitions.cancel(connection, claim)
            # what it waits for was told while it failed: let the step be done again, to find the signal
            return moved or (transitions.interrupt(connection, claim) if waits else None)

    def _interrupt(self, claim: Claim) -> None:
        # without a database the lease runs out instead; the process must end all the same
        with suppress(DatabaseUnavailable):
            with autocommit() as connection:
                moved = transitions.interrupt(connection, claim)
            if moved:
                announce([(moved.owner_id, moved.event)])


def _later(job: JobInStep, error: StorageUnavailable) -> Outcome | MillraceError:
    """Without the object storage no job can go on: it is not the job's fault and costs it no attempt, for a day."""
    if job.delayed > settings().storage_give_up_seconds:
        return error
    # the longer it lasts, the less often; apart from each other, or all would come back at once
    seconds = min(STORE_SECONDS, 1.0 + job.delayed / 2) * random.uniform(0.5, 1.0)  # noqa: S311
    return Later(seconds=seconds, message="waiting until the object storage answers again", error=error)


def _end_later(claim: Claim, outcome: Later) -> Moved | None:
    with autocommit() as connection:
        moved = transitions.postpone(
            connection,
            claim,
            seconds=outcome.seconds,
            message=outcome.message,
            circuit=outcome.circuit,
            error=outcome.error,
        )
        return moved or transitions.cancel(connection, claim)


def insist(act: Callable[[], T], seconds: float, in_vain: Callable[[], bool] = lambda: False) -> T:
    """``act`` again and again while the database cannot be reached, for ``seconds`` or until it would be in vain.

    A repeat is harmless: what was committed without our hearing of it finds the claim moved on, and does nothing.
    """
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return act()
        except DatabaseUnavailable:
            if time.monotonic() + pause > deadline or in_vain():
                raise
        time.sleep(pause)
        pause = min(pause * 2, 2.0)


def _after(moved: Moved | None) -> Due | None:
    """What is left to be done when this worker's part is over: another step to publish, another job to admit."""
    if moved is None:
        return None
    if moved.event.type == EventType.CANCELLED:
        dispatch.tell_cancelled(moved.event.job_id, moved.kind, moved.event.data.get("stage"))
    if moved.backlog:
        dispatch.admit(moved.owner_id, batch=max(1, settings().owner_running_jobs // 10))
    if moved.event.type == EventType.HANDED_OVER and moved.step:
        return Due(job_id=moved.event.job_id, kind=moved.kind, step=moved.step, lane=moved.lane)
    return None


def _retry_of_settings() -> Retry:
    config = settings()
    return Retry(
        attempts=config.retry_attempts,
        base_seconds=config.retry_base_seconds,
        cap_seconds=config.retry_cap_seconds,
        deadline_seconds=config.retry_deadline_seconds,
    )


def _next_claim(claim: Claim, moved: Moved) -> Claim:
    job = replace(
        claim.job,
        step=moved.step or claim.job.step,
        attempt=1,
        signal=moved.signal,
        result=moved.result,
        delayed=0.0,
    )
    return replace(claim, job=job, started_at=moved.event.at)

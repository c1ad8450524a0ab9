"""The engine: what every step is promised, in one place.

A step is claimed with a lease, run, and ended by one statement (or one transaction, when it has effects) that checks
the claim still stands. Failures are retried, ended or left to the sweep here; steps know nothing of it. See
docs/architecture.md for the states and docs/errors.md for the codes.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection

from domain.errors import DatabaseUnavailable, MillraceError, StepFailed
from domain.jobs import EventType
from domain.pipelines import Done, Outcome, Pipeline, Retry, StepFunction, Wait
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.events import announce
from storage.jobs import transitions
from storage.jobs.transitions import Claim, Moved
from workers import leases
from workers.leases import Hold
from workers.progress import StepContext
from workers.stops import Cancelled, ClaimGone

_log = structlog.get_logger()


class Engine:
    """Runs steps by name. ``steps`` maps a step's name to its function, ``worker`` names this process in the record."""

    def __init__(self, pipelines: dict[str, Pipeline], steps: dict[str, StepFunction], worker: str) -> None:
        self._pipelines = pipelines
        self._steps = steps
        self._worker = worker

    def run(self, job_id: UUID, step: str, going_on: Callable[[], None]) -> str | None:
        """Do ``step`` of the job, and go straight on as far as the next steps are short.

        ``going_on`` is called once for each following step that is done here, so that the caller can take its message
        off the chain. Answers the step that another worker is to do now, None when there is nothing to send.
        """
        with autocommit() as connection:
            found = transitions.claim(connection, job_id, step, self._worker, settings().lease_seconds)
        if found is None:
            _log.debug("step_not_to_be_had", step=step)
            return None
        claim, event = found
        hold = Hold(claim)
        leases.heartbeat.keep(hold)
        try:
            announce([event])
            while True:
                moved = self._attempt(hold)
                if moved is None or not moved.held:
                    return moved.step if moved and moved.event.type == EventType.HANDED_OVER else None
                going_on()
                hold.claim = _next_claim(hold.claim, moved)
        except (SystemExit, KeyboardInterrupt):
            self._interrupt(hold.claim)
            raise
        finally:
            leases.heartbeat.drop(hold)

    def _attempt(self, hold: Hold) -> Moved | None:
        """Run one attempt to its end; the move it ended with, None when the claim was gone."""
        claim = hold.claim
        began = time.perf_counter()
        moved = self._end(claim, self._run_step(claim, hold))
        if moved:
            announce([moved.event])
        _log.info(
            "step_ended",
            outcome=moved.event.type if moved else "claim_gone",
            ms=round((time.perf_counter() - began) * 1000),
        )
        return moved

    def _run_step(self, claim: Claim, hold: Hold) -> Outcome | MillraceError | Cancelled | ClaimGone:
        job = claim.job
        context = StepContext(hold, self._pipelines[job.kind])
        structlog.contextvars.bind_contextvars(step=job.step, attempt=job.attempt)
        try:
            return self._steps[job.step](job, context)
        except (Cancelled, ClaimGone) as stop:
            return stop
        except DatabaseUnavailable:
            raise  # nothing can be recorded now: the lease runs out and the sweep hands the step to another worker
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
            case Done() | Wait():
                try:
                    return self._end_done(claim, outcome)
                except DatabaseUnavailable:
                    raise
                except MillraceError as error:
                    return self._end_failed(claim, error)
                except Exception:
                    # e.g. a value Postgres cannot store: nothing of the step was committed, and it would happen again
                    _log.exception("step_not_committed", step=claim.job.step)
                    return self._end_failed(claim, StepFailed())

    def _end_done(self, claim: Claim, outcome: Outcome) -> Moved | None:
        if outcome.effects:
            moved = self._commit_effects(claim, outcome)
        else:
            with autocommit() as connection:
                moved = self._move(connection, claim, outcome)
        if moved is None:
            with autocommit() as connection:  # cancelled while it ran, or another worker's by now
                return transitions.cancel(connection, claim)
        return moved

    def _commit_effects(self, claim: Claim, outcome: Outcome) -> Moved | None:
        """Effects and move in one transaction; the move, which checks the claim, decides whether any of it happens."""
        with transaction() as connection:
            for effect in outcome.effects:
                effect(connection)
            moved = self._move(connection, claim, outcome)
            if moved is None:
                connection.rollback()
        return moved

    def _move(self, connection: Connection, claim: Claim, outcome: Outcome) -> Moved | None:
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

    def _end_failed(self, claim: Claim, error: MillraceError) -> Moved | None:
        policy = self._pipelines[claim.job.kind].step(claim.job.step).retry or _retry_of_settings()
        with autocommit() as connection:
            if error.retryable and claim.job.attempt < policy.attempts:
                # the jitter spreads retries, it guards nothing
                delay = max(policy.delay(claim.job.attempt, random.random()), error.retry_after or 0)  # noqa: S311
                moved = transitions.retry(connection, claim, error, delay)
            else:
                moved = transitions.fail(connection, claim, error)
            return moved or transitions.cancel(connection, claim)

    def _interrupt(self, claim: Claim) -> None:
        # without a database the lease runs out instead; the process must end all the same
        with suppress(DatabaseUnavailable):
            with autocommit() as connection:
                moved = transitions.interrupt(connection, claim)
            if moved:
                announce([moved.event])


def _retry_of_settings() -> Retry:
    config = settings()
    return Retry(
        attempts=config.retry_attempts, base_seconds=config.retry_base_seconds, cap_seconds=config.retry_cap_seconds
    )


def _next_claim(claim: Claim, moved: Moved) -> Claim:
    job = replace(
        claim.job,
        step=moved.step or claim.job.step,
        attempt=1,
        signal=moved.signal,
        result=moved.result,
    )
    return Claim(token=claim.token, job=job, worker=claim.worker, started_at=moved.event.at)

"""Every move of a job, as a function: present the claim, get what changed or None when the claim no longer stands."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, TextClause

from domain.errors import MillraceError
from domain.identity import new_id
from domain.jobs import Event, EventType, Status
from domain.pipelines import InputFile, JobInStep, ResultFile
from storage.jobs import statements


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's hold on one attempt of one step; every later move of the attempt must present it."""

    token: UUID
    job: JobInStep
    request_id: str | None  # of the request that ordered the job
    worker: str
    started_at: datetime


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    owner_id: UUID
    kind: str
    step: str | None  # the step that is next or running now
    held: bool  # whether the claim still stands after the move
    lane: int
    backlog: bool  # the job has ended, and others of its owner wait to be admitted
    signal: dict[str, Any] | None
    result: ResultFile | None
    event: Event


def claim(connection: Connection, job_id: UUID, step: str, worker: str, lease: float) -> tuple[Claim, Event] | None:
    """Take hold of a job's step for ``lease`` seconds; None when it is not to be had (held, done, cancelled)."""
    token = new_id()
    row = connection.execute(
        statements.CLAIM, {"id": job_id, "step": step, "claim": token, "worker": worker, "lease": lease}
    ).one_or_none()
    if row is None:
        return None
    job = JobInStep(
        id=row.id,
        owner_id=row.owner_id,
        kind=row.kind,
        step=row.step,
        attempt=row.attempt,
        params=row.params,
        signal=row.signal,
        result=result_of(row),
        file=InputFile(
            key=row.object_key,
            name=row.name,
            size=row.size,
            content_type=row.content_type,
            kind=row.file_kind,
            local_headers=row.local_headers,
        )
        if row.object_key
        else None,
        delayed=(row.claimed_at - row.delayed_since).total_seconds() if row.delayed_since else 0.0,
    )
    return Claim(token=token, job=job, request_id=row.request_id, worker=worker, started_at=row.claimed_at), event_of(
        row
    )


def _result(result: ResultFile | None) -> dict[str, Any]:
    if result is None:
        return {"result_key": None, "result_name": None, "result_size": None}
    return {"result_key": result.key, "result_name": result.name, "result_size": result.size}


def _act(connection: Connection, statement: TextClause, claim: Claim, **values: Any) -> Moved | None:
    row = connection.execute(
        statement,
        {
            "id": claim.job.id,
            "claim": claim.token,
            "step": claim.job.step,
            "attempt": claim.job.attempt,
            "worker": claim.worker,
            "started_at": claim.started_at,
            **values,
        },
    ).one_or_none()
    return moved_of(row) if row else None


def advance(
    connection: Connection,
    claim: Claim,
    *,
    next_step: str,
    until: int,
    seconds: float,
    message: str | None,
    result: ResultFile | None,
) -> Moved | None:
    """The step is done and this worker goes straight on to the next, under the same claim for ``seconds`` more."""
    values = {"next": next_step, "until": until, "lease": seconds, "message": message, **_result(result)}
    return _act(connection, statements.ADVANCE, claim, **values)


def hand_over(
    connection: Connection,
    claim: Claim,
    *,
    next_step: str,
    until: int,
    seconds: float,
    message: str | None,
    result: ResultFile | None,
) -> Moved | None:
    """The step is done and the next one waits for its message, which the sweep repeats after ``seconds``."""
    values = {"next": next_step, "until": until, "republish": seconds, "message": message, **_result(result)}
    return _act(connection, statements.HAND_OVER, claim, **values)


def wait(
    connection: Connection,
    claim: Claim,
    *,
    next_step: str,
    seconds: float,
    lease: float,
    message: str | None,
    again: bool = False,
) -> Moved | None:
    """The step is done and the job waits for a signal; if it has come already, ``held`` is true and the next begins.

    ``again``: it has waited before, and the time it does so is counted on.
    """
    values = {"next": next_step, "seconds": seconds, "lease": lease, "message": message, "again": again}
    return _act(connection, statements.WAIT, claim, **values)


def postpone(
    connection: Connection,
    claim: Claim,
    *,
    seconds: float,
    message: str,
    circuit: str | None = None,
    error: MillraceError | None = None,
) -> Moved | None:
    """The step is put off for ``seconds``, or until the circuit lets it through; the attempt keeps its number."""
    values = {"seconds": seconds, "message": message, "circuit": circuit}
    said = {"error_code": error and error.code, "error_message": error and str(error)}
    return _act(connection, statements.POSTPONE, claim, **values, **said)


def succeed(connection: Connection, claim: Claim, *, message: str | None, result: ResultFile | None) -> Moved | None:
    return _act(connection, statements.SUCCEED, claim, message=message, **_result(result))


def failing_for(connection: Connection, claim: Claim) -> float:
    """Seconds since the first attempt at the claimed step began, 0 at the first."""
    if claim.job.attempt == 1:
        return 0.0
    values = {"job_id": claim.job.id, "step": claim.job.step}
    return float(connection.execute(statements.FAILING_FOR, values).scalar() or 0.0)


def retry(connection: Connection, claim: Claim, error: MillraceError, delay: float) -> Moved | None:
    """The attempt failed for a passing reason; the next may begin after ``delay`` seconds."""
    return _act(connection, statements.RETRY, claim, delay=delay, error_code=error.code, error_message=str(error))


def fail(connection: Connection, claim: Claim, error: MillraceError, *, unless_signalled: bool = False) -> Moved | None:
    """End the job; None also when ``unless_signalled`` and the signal has come while the step ran."""
    failure = {"error_code": error.code, "error_message": str(error), "retryable": error.retryable}
    return _act(connection, statements.FAIL, claim, unless_signalled=unless_signalled, **failure)


def overrun(connection: Connection, claim: Claim, error: MillraceError, quarantine_after: int) -> Moved | None:
    """The step ran longer than it may: to be tried again, or failed with ``error`` at the last of its times."""
    failure = {"error_code": error.code, "error_message": str(error), "retryable": error.retryable}
    return _act(connection, statements.OVERRUN, claim, losses=quarantine_after) or _act(
        connection, statements.OVERRUN_FOR_GOOD, claim, **failure
    )


def interrupt(connection: Connection, claim: Claim) -> Moved | None:
    """The worker stops in the middle of the step: nothing failed, the attempt keeps its number."""
    return _act(connection, statements.INTERRUPT, claim)


def cancel(connection: Connection, claim: Claim) -> Moved | None:
    """End a job whose cancellation was asked for; None when it was not."""
    return _act(connection, statements.CANCEL, claim)


def signal(
    connection: Connection,
    job_id: UUID,
    content: dict[str, Any],
    *,
    waits: str,
    until: int,
    republish: float,
    result: ResultFile | None,
    asks: str | None = None,
) -> Moved | None:
    """End the waiting after step ``waits``; None when the job does not wait (yet, any more, or at all).

    ``asks`` is the step that goes and asks when the deadline has passed: until it is over, the job still waits.
    """
    values = {"id": job_id, "signal": msgspec.json.encode(content).decode(), "waits": waits, "until": until}
    values["asks"] = asks
    row = connection.execute(statements.SIGNAL, {**values, "republish": republish, **_result(result)}).one_or_none()
    return moved_of(row) if row else None


def fail_signalled(
    connection: Connection,
    job_id: UUID,
    content: dict[str, Any],
    error: MillraceError,
    *,
    waits: str,
    asks: str | None = None,
) -> Moved | None:
    """End a waiting job as failed because what it waited for failed; None when it does not wait."""
    values = {"id": job_id, "signal": msgspec.json.encode(content).decode(), "waits": waits, "asks": asks}
    failure = {"error_code": error.code, "error_message": str(error), "retryable": error.retryable}
    row = connection.execute(statements.FAIL_SIGNALLED, {**values, **failure}).one_or_none()
    return moved_of(row) if row else None


def heartbeat(connection: Connection, claims: list[UUID], lease: float) -> dict[UUID, bool]:
    """Extend these claims; answers those that still stand, each with whether its job is to be cancelled."""
    rows = connection.execute(statements.HEARTBEAT, {"claims": claims, "lease": lease})
    return {row.claim: row.cancelled for row in rows}


def progress(
    connection: Connection, claim: Claim, percent: int, message: str | None, left: float | None = None
) -> int | None:
    """Store the newest percentage, and for how many seconds the stage will likely go on; answers the percentage that
    stands (it never falls), None when the claim is gone."""
    values = {"id": claim.job.id, "claim": claim.token, "progress": percent, "message": message, "left": left}
    return connection.execute(statements.PROGRESS, values).scalar_one_or_none()


class Reported(NamedTuple):
    """How far the other side is, stored; ``due`` is whether the event is to be announced, ten a second at most."""

    owner_id: UUID
    event: Event
    due: bool


def remote_progress(
    connection: Connection,
    job_id: UUID,
    percent: int,
    message: str | None,
    *,
    waits: str,
    asks: str | None = None,
    share: float | None = None,
) -> Reported | None:
    """Store how far the other side is while the job waits after step ``waits``; None when it does not wait.

    ``percent`` is of the whole job, ``share`` (0 to 1) of what the other side does: its pace tells how long it takes.
    """
    values = {"id": job_id, "progress": percent, "message": message, "waits": waits, "asks": asks, "share": share}
    row = connection.execute(statements.REMOTE_PROGRESS, values).one_or_none()
    if row is None:
        return None
    data = {"status": Status.PROCESSING, "stage": row.stage, "progress": row.progress, "message": row.message}
    if row.eta_seconds is not None:
        data["eta_seconds"] = row.eta_seconds
    event = Event(job_id=job_id, type=EventType.PROGRESS, at=row.updated_at, data=data)
    return Reported(row.owner_id, event, row.due)


def event_of(row: Row[Any]) -> Event:
    return Event(job_id=row.id, seq=row.seq, type=EventType(row.type), at=row.at, data=row.data)


def moved_of(row: Row[Any]) -> Moved:
    return Moved(
        owner_id=row.owner_id,
        kind=row.kind,
        step=row.step,
        held=row.held,
        lane=row.lane,
        backlog=row.backlog,
        signal=row.signal,
        result=result_of(row),
        event=event_of(row),
    )


def result_of(row: Row[Any]) -> ResultFile | None:
    if row.result_key is None:
        return None
    return ResultFile(key=row.result_key, name=row.result_name, size=row.result_size)

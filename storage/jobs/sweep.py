"""What the sweep asks of Postgres every few seconds; safe to run twice at once and at any moment.

Each question is one bounded statement with ``SKIP LOCKED`` on a partial index of its own.
"""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, TextClause, text

from domain.errors import MillraceError
from storage.jobs.statements import CLOSED, LET_GO, REQUEUED, move
from storage.jobs.transitions import Moved, moved_of

BATCH = 500
LANES_AHEAD = 3


def _some(condition: str, order: str) -> str:
    # NO KEY UPDATE is what an UPDATE takes: a plain FOR UPDATE would also pass over every job some transaction has only
    # referred to, for instance one that hangs amid its effects.
    return f"id IN (SELECT id FROM jobs WHERE {condition} ORDER BY {order} LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED)"


_FAIL = (
    f"status = 'failed', {CLOSED}, error_code = :error_code, error_message = :error_message, error_stage = stage, "
    "error_retryable = :retryable, message = :error_message"
)
_HOLDER = "stage, attempt, claimed_by, claimed_at"
# The lease has run out, or the process that holds it is known to be gone.
_EXPIRED = "claim IS NOT NULL AND (lease_until < now() OR claimed_by = ANY(:gone))"

_lost = move(
    f"{LET_GO}, {REQUEUED}, losses = losses + 1",
    _some(f"{_EXPIRED} AND losses + 1 < :losses AND cancel_requested_at IS NULL", "lease_until"),
    "'interrupted'",
    outcome="'lost'",
    attempt=_HOLDER,
)
_quarantined = move(
    f"{_FAIL}, losses = losses + 1",
    _some(f"{_EXPIRED} AND losses + 1 >= :losses AND cancel_requested_at IS NULL", "lease_until"),
    "'failed'",
    outcome="'lost'",
    attempt=_HOLDER,
    error=":error_code, :error_message",
)
# A job nobody holds is cancelled here; one that is held leaves by itself at its next checkpoint.
_cancelled = move(
    f"status = 'cancelled', {CLOSED}, message = NULL",
    _some(
        "cancel_requested_at IS NOT NULL AND status IN ('pending', 'queued', 'processing') "
        "AND (claim IS NULL OR lease_until < now())",
        "cancel_requested_at",
    ),
    "'cancelled'",
)
_overdue = move(_FAIL, _some("awaiting AND deadline_at < now() AND kind = :kind", "deadline_at"), "'failed'")
# The job waits no more but is to go and ask; that is a step like any other, with a claim, a lease and attempts.
_to_ask = text(f"""
    UPDATE jobs SET awaiting = FALSE, step = :asks, attempt = 1, losses = 0, run_at = now(), republish_at = now(),
        publishes = 0, updated_at = now()
    WHERE {
    _some(
        "awaiting AND deadline_at < now() AND kind = :kind AND step = :next AND cancel_requested_at IS NULL",
        "deadline_at",
    )
}""")
_abandoned = move(
    _FAIL,
    _some("status = 'pending' AND created_at < now() - make_interval(secs => :seconds)", "created_at"),
    "'failed'",
)
_READY = "claim IS NULL AND NOT awaiting AND admitted AND status IN ('queued', 'processing')"
# Each time nobody claims what was published, the next time is twice as far, up to 64 times: a long queue is no loss.
# And it is published some lanes further ahead, so that nobody waits for ever behind others who have few jobs each.
_due = text(f"""
    UPDATE jobs SET published_at = now(), publishes = publishes + 1,
        lane = CASE WHEN publishes > 0 THEN GREATEST(lane - {LANES_AHEAD}, 0) ELSE lane END,
        republish_at = now() + make_interval(secs => :republish * 2 ^ LEAST(publishes, 6))
    WHERE {
    _some(f"{_READY} AND republish_at <= now() AND run_at <= now() AND cancel_requested_at IS NULL", "republish_at")
} RETURNING id, kind, step, lane""")
# It may have been done by another message meanwhile, even to its end.
_unpublished = text("""
    UPDATE jobs SET republish_at = now(), publishes = 0
    WHERE id = ANY(:ids) AND claim IS NULL AND completed_at IS NULL""")
# What was published for these tasks and not claimed is lost: the broker was emptied, or holds nothing for them.
_lost_messages = text(f"""
    UPDATE jobs SET republish_at = now(), publishes = 0
    WHERE {
    _some(
        f"{_READY} AND kind || '.' || step = ANY(:tasks) AND republish_at > now() AND run_at <= now() "
        "AND published_at <= now() - make_interval(secs => :patience)",
        "republish_at",
    )
}""")
_holders = text("SELECT DISTINCT claimed_by FROM jobs WHERE claim IS NOT NULL")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A job's step to be published now."""

    job_id: UUID
    kind: str
    step: str
    lane: int  # of the broker's queue, 0 is emptied first


def holders(connection: Connection) -> list[str]:
    """The names of the processes that hold claims."""
    return list(connection.execute(_holders).scalars())


def release_lost(connection: Connection, quarantine_after: int, gone: list[str]) -> list[Moved]:
    """Take back the claims whose lease has run out, or whose holder is among the ``gone``."""
    return _all(connection, _lost, losses=quarantine_after, gone=gone)


def quarantine(connection: Connection, quarantine_after: int, error: MillraceError, gone: list[str]) -> list[Moved]:
    """Fail the jobs whose step has lost its worker ``quarantine_after`` times."""
    return _all(connection, _quarantined, losses=quarantine_after, gone=gone, **_failure(error))


def finish_cancelled(connection: Connection) -> list[Moved]:
    """End the jobs whose cancellation was asked for and that no worker holds."""
    return _all(connection, _cancelled)


def fail_overdue(connection: Connection, kind: str, error: MillraceError) -> list[Moved]:
    """Fail the jobs of this kind that waited past their deadline."""
    return _all(connection, _overdue, kind=kind, **_failure(error))


def ask_overdue(connection: Connection, kind: str, *, next_step: str, asks: str) -> int:
    """Give the jobs of this kind that waited past their deadline for ``next_step`` the step ``asks``; their number."""
    return connection.execute(_to_ask, {"kind": kind, "next": next_step, "asks": asks}).rowcount


def fail_abandoned(connection: Connection, seconds: float, error: MillraceError) -> list[Moved]:
    """Fail the jobs that stayed without a file for ``seconds``."""
    return _all(connection, _abandoned, seconds=seconds, **_failure(error))


def due(connection: Connection, republish: float) -> list[Due]:
    """The jobs to publish now, marked so that no other sweep takes them for ``republish`` seconds."""
    rows = connection.execute(_due, {"republish": republish})
    return [due_of(row) for row in rows]


def lost_messages(connection: Connection, tasks: list[str], patience: float) -> int:
    """Make due again what was published for these tasks over ``patience`` seconds ago; the number of jobs."""
    found = 0
    while (some := connection.execute(_lost_messages, {"tasks": tasks, "patience": patience}).rowcount) == BATCH:
        found += some
    return found + some


def due_of(row: Row[Any]) -> Due:
    return Due(job_id=row.id, kind=row.kind, step=row.step, lane=row.lane)


def unpublished(connection: Connection, ids: list[UUID]) -> None:
    """These could not be published; the next sweep is to take them again."""
    connection.execute(_unpublished, {"ids": ids})


def _failure(error: MillraceError) -> dict[str, object]:
    return {"error_code": error.code, "error_message": str(error), "retryable": error.retryable}


def _all(connection: Connection, statement: TextClause, **values: object) -> list[Moved]:
    return [moved_of(row) for row in connection.execute(statement, values)]

"""What the sweep asks of Postgres every few seconds; safe to run twice at once and at any moment.

Each question is one bounded statement with ``FOR UPDATE SKIP LOCKED`` on a partial index of its own.
"""

from uuid import UUID

import msgspec
from sqlalchemy import Connection, TextClause, text

from domain.errors import MillraceError
from storage.jobs.statements import CLOSED, LET_GO, move
from storage.jobs.transitions import Moved, moved_of

BATCH = 500


def _some(condition: str, order: str) -> str:
    return f"id IN (SELECT id FROM jobs WHERE {condition} ORDER BY {order} LIMIT {BATCH} FOR UPDATE SKIP LOCKED)"


_FAIL = (
    f"status = 'failed', {CLOSED}, error_code = :error_code, error_message = :error_message, error_stage = stage, "
    "error_retryable = :retryable, message = :error_message"
)
_HOLDER = "stage, attempt, claimed_by, claimed_at"
_EXPIRED = "claim IS NOT NULL AND lease_until < now()"

_lost = move(
    f"{LET_GO}, losses = losses + 1, run_at = now(), republish_at = now()",
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
_abandoned = move(
    _FAIL,
    _some("status = 'pending' AND created_at < now() - make_interval(secs => :seconds)", "created_at"),
    "'failed'",
)
_due = text(f"""
    UPDATE jobs SET republish_at = now() + make_interval(secs => :republish)
    WHERE {
    _some(
        "claim IS NULL AND NOT awaiting AND status IN ('queued', 'processing') AND republish_at <= now() "
        "AND run_at <= now() AND cancel_requested_at IS NULL",
        "republish_at",
    )
} RETURNING id, kind, step""")
_unpublished = text("UPDATE jobs SET republish_at = now() WHERE id = ANY(:ids) AND claim IS NULL")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    job_id: UUID
    kind: str
    step: str


def release_lost(connection: Connection, quarantine_after: int) -> list[Moved]:
    """Take back the claims whose lease has run out: their workers died, hang or were cut off."""
    return _all(connection, _lost, losses=quarantine_after)


def quarantine(connection: Connection, quarantine_after: int, error: MillraceError) -> list[Moved]:
    """Fail the jobs whose step has lost its worker ``quarantine_after`` times."""
    return _all(connection, _quarantined, losses=quarantine_after, **_failure(error))


def finish_cancelled(connection: Connection) -> list[Moved]:
    """End the jobs whose cancellation was asked for and that no worker holds."""
    return _all(connection, _cancelled)


def fail_overdue(connection: Connection, kind: str, error: MillraceError) -> list[Moved]:
    """Fail the jobs of this kind that waited past their deadline."""
    return _all(connection, _overdue, kind=kind, **_failure(error))


def fail_abandoned(connection: Connection, seconds: float, error: MillraceError) -> list[Moved]:
    """Fail the jobs that stayed without a file for ``seconds``."""
    return _all(connection, _abandoned, seconds=seconds, **_failure(error))


def due(connection: Connection, republish: float) -> list[Due]:
    """The jobs to publish now, marked so that no other sweep takes them for ``republish`` seconds."""
    rows = connection.execute(_due, {"republish": republish})
    return [Due(job_id=row.id, kind=row.kind, step=row.step) for row in rows]


def unpublished(connection: Connection, ids: list[UUID]) -> None:
    """These could not be published; the next sweep is to take them again."""
    connection.execute(_unpublished, {"ids": ids})


def _failure(error: MillraceError) -> dict[str, object]:
    return {"error_code": error.code, "error_message": str(error), "retryable": error.retryable}


def _all(connection: Connection, statement: TextClause, **values: object) -> list[Moved]:
    return [moved_of(row) for row in connection.execute(statement, values)]

"""Deliveries on their way: which are due, who has them, and what became of them.

A delivery that is due is claimed by the dispatcher, with a lease; whoever takes up its message extends the lease, makes
the attempt and records it under the same claim. Whatever gets lost on the way, the lease runs out.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, text

from domain.identity import new_id
from domain.webhooks import PER_ENDPOINT, Fault, State

DISPATCHED = 500  # at once
MESSAGE_SECONDS = 5.0  # a message that nobody takes up for so long is sent again; later each time, up to 64 times that

_LOST = "(lease_until < now() OR COALESCE(claimed_by = ANY(:gone), FALSE))"
# Endpoints that fail share half of the places, so that they cannot hold up the others however many they are.
_claim = text(f"""
    WITH flying AS (
        SELECT webhook_id, count(*) AS number FROM webhook_deliveries
        WHERE claim IS NOT NULL AND NOT {_LOST} GROUP BY webhook_id),
    failing AS (
        SELECT COALESCE(sum(flying.number), 0) AS number FROM flying
        JOIN webhooks ON webhooks.id = flying.webhook_id WHERE failing_since IS NOT NULL),
    due AS (
        SELECT found.id, webhooks.failing_since IS NOT NULL AS fails, found.next_attempt_at
        FROM webhooks LEFT JOIN flying ON flying.webhook_id = webhooks.id
        CROSS JOIN LATERAL (
            SELECT id, next_attempt_at FROM webhook_deliveries
            WHERE webhook_id = webhooks.id AND state = 'pending' AND next_attempt_at <= now()
                AND (claim IS NULL OR {_LOST})
            ORDER BY next_attempt_at
            LIMIT GREATEST(0, CASE WHEN webhooks.failing_since IS NULL THEN {PER_ENDPOINT} ELSE 1 END
                           - COALESCE(flying.number, 0))
            FOR NO KEY UPDATE SKIP LOCKED) AS found),
    chosen AS (
        SELECT id FROM (
            SELECT id, fails, row_number() OVER (PARTITION BY fails ORDER BY next_attempt_at) AS place FROM due
        ) AS placed, failing
        WHERE CASE WHEN fails THEN place <= :failing - failing.number ELSE place <= {DISPATCHED} END)
    UPDATE webhook_deliveries SET claim = gen_random_uuid(), claimed_by = NULL, publishes = LEAST(publishes + 1, 100),
        lease_until = now() + make_interval(secs => {MESSAGE_SECONDS} * 2 ^ LEAST(publishes, 6))
    FROM chosen WHERE webhook_deliveries.id = chosen.id
    RETURNING webhook_deliveries.id, claim""")
_holders = text("SELECT DISTINCT claimed_by FROM webhook_deliveries WHERE claim IS NOT NULL AND claimed_by IS NOT NULL")
_release = text("""
    UPDATE webhook_deliveries SET claim = NULL, claimed_by = NULL, lease_until = NULL, publishes = 0
    WHERE claim = ANY(:claims)""")
_TAKEN = """claimed_by = :worker, publishes = 0, lease_until = clock_timestamp() + make_interval(secs => :lease)"""
_SENT = """taken.id, taken.claim, taken.webhook_id, taken.type, taken.at, taken.data, taken.failed_attempts,
    webhooks.url, webhooks.enabled, webhooks.secrets"""
_take = text(f"""
    WITH taken AS (
        UPDATE webhook_deliveries SET {_TAKEN} WHERE id = :id AND claim = :claim AND state = 'pending' RETURNING *)
    SELECT {_SENT} FROM taken JOIN webhooks ON webhooks.id = taken.webhook_id""")
# The place of the one that is done goes to the next of the same endpoint, and not through the broker.
_next = text(f"""
    WITH taken AS (
        UPDATE webhook_deliveries SET {_TAKEN}, claim = :claim WHERE id = (
            SELECT id FROM webhook_deliveries
            WHERE webhook_id = :webhook_id AND state = 'pending' AND next_attempt_at <= now()
                AND (claim IS NULL OR lease_until < now())
            ORDER BY next_attempt_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING *)
    SELECT {_SENT} FROM taken JOIN webhooks ON webhooks.id = taken.webhook_id""")
_record = text("""
    WITH done AS (
        UPDATE webhook_deliveries SET state = :state, attempts = attempts + 1,
            failed_attempts = failed_attempts + CASE WHEN CAST(:fault AS text) IS NULL THEN 0 ELSE 1 END,
            next_attempt_at = CASE WHEN :state = 'pending' THEN now() + make_interval(secs => :delay) END,
            completed_at = CASE WHEN :state <> 'pending' THEN now() END,
            claim = NULL, claimed_by = NULL, lease_until = NULL
        WHERE id = :id AND claim = :claim
        RETURNING id, webhook_id, attempts),
    noted AS (
        INSERT INTO webhook_attempts (delivery_id, number, at, status_code, milliseconds, answer, fault)
        SELECT id, attempts, :at, :status_code, :milliseconds, :answer, :fault FROM done),
    endpoint AS (
        UPDATE webhooks SET failing_since = CASE WHEN CAST(:fault AS text) IS NOT NULL THEN now() END
        FROM done WHERE webhooks.id = done.webhook_id
            AND (webhooks.failing_since IS NULL) <> (CAST(:fault AS text) IS NULL))
    SELECT id FROM done""")
_drop = text("""
    UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL, completed_at = now(),
        claim = NULL, claimed_by = NULL, lease_until = NULL
    WHERE id = :id AND claim = :claim""")
_old = text("""
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT id FROM webhook_deliveries WHERE completed_at < now() - make_interval(secs => :seconds)
        ORDER BY completed_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    claim: UUID


class Sending(Claimed, frozen=True, kw_only=True):
    """All that an attempt needs to know."""

    webhook_id: UUID
    type: str
    at: datetime
    data: dict[str, Any]
    failed_attempts: int
    url: str
    enabled: bool
    secrets: list[dict[str, Any]]


class Attempted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an attempt; ``fault`` None is a success."""

    at: datetime
    milliseconds: int
    status_code: int | None = None
    answer: str | None = None
    fault: Fault | None = None
    retry_after: float | None = None  # seconds


def holders(connection: Connection) -> list[str]:
    """The names of the processes that have deliveries on their way."""
    return list(connection.execute(_holders).scalars())


def claim_due(connection: Connection, gone: list[str], failing: int) -> list[Claimed]:
    """Claim what is due, as far as its endpoint has a place free; for one dispatcher at a time (``feed.hold``).

    ``gone``: processes that hold deliveries and are no more; ``failing``: the places of all endpoints that fail.
    """
    rows = connection.execute(_claim, {"gone": gone, "failing": failing})
    return [Claimed(id=row.id, claim=row.claim) for row in rows]


def release(connection: Connection, claimed: list[Claimed]) -> None:
    """These could not be published; the next dispatch is to take them again."""
    connection.execute(_release, {"claims": [one.claim for one in claimed]})


def take(connection: Connection, claimed: Claimed, worker: str, lease: float) -> Sending | None:
    """Begin with it; None when somebody else has, or the claim has run out and was given anew."""
    values = {"id": claimed.id, "claim": claimed.claim, "worker": worker, "lease": lease}
    return _sending(connection.execute(_take, values).one_or_none())


def take_next(connection: Connection, webhook_id: UUID, worker: str, lease: float) -> Sending | None:
    """Begin with the next one that is due for the endpoint, in the place of one that is done."""
    values = {"webhook_id": webhook_id, "claim": new_id(), "worker": worker, "lease": lease}
    return _sending(connection.execute(_next, values).one_or_none())


def record(connection: Connection, sending: Sending, done: Attempted, delay: float | None) -> bool:
    """Note the attempt, and when the next one is: after ``delay`` seconds, or never. One statement.

    False, and nothing is noted, when the claim no longer stands.
    """
    state = State.DELIVERED if done.fault is None else State.FAILED if delay is None else State.PENDING
    values = {
        "id": sending.id,
        "claim": sending.claim,
        "state": str(state),
        "delay": delay or 0.0,
        "at": done.at,
        "milliseconds": done.milliseconds,
        "status_code": done.status_code,
        "answer": done.answer,
        "fault": None if done.fault is None else str(done.fault),
    }
    return connection.execute(_record, values).first() is not None


def drop(connection: Connection, sending: Sending) -> None:
    """Give it up without an attempt: its endpoint was disabled."""
    connection.execute(_drop, {"id": sending.id, "claim": sending.claim})


def remove_old(connection: Connection, seconds: float, limit: int) -> int:
    """Delete at most ``limit`` deliveries that ended more than ``seconds`` ago, with their attempts; their number."""
    return connection.execute(_old, {"seconds": seconds, "limit": limit}).rowcount


def _sending(row: Row[Any] | None) -> Sending | None:
    return None if row is None else msgspec.convert(dict(row._mapping), Sending)

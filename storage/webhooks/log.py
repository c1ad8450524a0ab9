"""Deliveries as an endpoint's owner sees them, and those the owner asks for: a ping, a replay."""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, text

from domain.errors.requests import NotFound
from domain.identity import new_id
from domain.webhooks import PING, Delivery, State, message_id

_VIEW = """SELECT deliveries.id, type, job_id, state, next_attempt_at, created_at, completed_at, COALESCE((
        SELECT jsonb_agg(jsonb_build_object('number', number, 'at', at, 'status_code', status_code, 'answer', answer,
            'seconds', milliseconds / 1000.0, 'fault', fault) ORDER BY number)
        FROM webhook_attempts WHERE delivery_id = deliveries.id), '[]') AS attempts
    FROM"""
_page = text(f"""
    {_VIEW} webhook_deliveries AS deliveries
    WHERE webhook_id = :webhook_id AND (CAST(:after AS uuid) IS NULL OR deliveries.id < :after)
        AND (CAST(:state AS text) IS NULL OR state = :state)
    ORDER BY deliveries.id DESC LIMIT :limit""")
_ping = text(f"""
    WITH deliveries AS (
        INSERT INTO webhook_deliveries (id, webhook_id, type, at, data, next_attempt_at)
        VALUES (:id, :webhook_id, '{PING}', now(), '{{}}', now()) RETURNING *)
    {_VIEW} deliveries""")
# One that is on its way is answered as it is.
_replay = text(f"""
    WITH deliveries AS (
        UPDATE webhook_deliveries SET state = 'pending', completed_at = NULL, failed_attempts = 0, publishes = 0,
            next_attempt_at = CASE WHEN claimed_by IS NULL THEN now() ELSE next_attempt_at END
        WHERE id = :id AND webhook_id = :webhook_id RETURNING *)
    {_VIEW} deliveries""")


def page(
    connection: Connection, webhook_id: UUID, *, state: State | None, after: UUID | None, limit: int
) -> list[Delivery]:
    """Newest first, those older than ``after``, with every attempt."""
    values = {"webhook_id": webhook_id, "state": state and str(state), "after": after, "limit": limit}
    return [_delivery(row) for row in connection.execute(_page, values)]


def ping(connection: Connection, webhook_id: UUID) -> Delivery:
    """A delivery that says nothing."""
    return _delivery(connection.execute(_ping, {"id": new_id(), "webhook_id": webhook_id}).one())


def replay(connection: Connection, webhook_id: UUID, delivery_id: UUID) -> Delivery:
    """Deliver it (again), at once and with all its attempts before it. Raises NotFound."""
    row = connection.execute(_replay, {"id": delivery_id, "webhook_id": webhook_id}).one_or_none()
    if row is None:
        raise NotFound(what="delivery")
    return _delivery(row)


def _delivery(row: Row[Any]) -> Delivery:
    return msgspec.convert({**row._mapping, "message_id": message_id(row.id)}, Delivery)

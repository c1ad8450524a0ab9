"""Endpoints as their owners see and change them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, Row, text

from domain.errors.requests import Conflict, NotFound
from domain.errors.webhooks import TooManyWebhooks
from domain.identity import new_id
from domain.webhooks import (
    OLD_SECRET_SECONDS,
    SECRETS_AT_MOST,
    DisabledReason,
    NewSecret,
    Webhook,
    WebhookChange,
    WebhookOrder,
    new_secret,
)
from storage.webhooks.sealing import seal

_COLUMNS = "id, url, event_types, description, enabled, disabled_reason, failing_since, created_at, updated_at"
_THEIRS = "(CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)"
_lock_owner = text("SELECT FROM accounts WHERE id = :owner_id FOR NO KEY UPDATE")
_count = text("SELECT count(*) FROM webhooks WHERE owner_id = :owner_id")
_insert = text(f"""
    INSERT INTO webhooks (id, owner_id, url, event_types, description, enabled, disabled_reason, secrets)
    VALUES (:id, :owner_id, :url, :event_types, :description, :enabled,
            CASE WHEN NOT :enabled THEN 'owner' END, CAST(:secrets AS jsonb))
    RETURNING {_COLUMNS}""")
_one = text(f"SELECT {_COLUMNS} FROM webhooks WHERE id = :id AND {_THEIRS}")
_page = text(f"""
    SELECT {_COLUMNS} FROM webhooks WHERE {_THEIRS} AND (CAST(:after AS uuid) IS NULL OR id < :after)
    ORDER BY id DESC LIMIT :limit""")
# Who enables it again begins anew: what happened meanwhile is not for it, and its failures are forgotten.
_change = text(f"""
    UPDATE webhooks SET updated_at = now(),
        url = COALESCE(:url, url), event_types = COALESCE(:event_types, event_types),
        description = CASE WHEN :describe THEN :description ELSE description END,
        enabled = COALESCE(:enabled, enabled),
        disabled_reason = CASE WHEN :enabled THEN NULL WHEN NOT :enabled AND enabled THEN 'owner'
            ELSE disabled_reason END,
        failing_since = CASE WHEN :enabled THEN NULL ELSE failing_since END,
        since = CASE WHEN :enabled AND NOT enabled THEN CAST(pg_current_snapshot() AS text) ELSE since END
    WHERE id = :id AND {_THEIRS}
    RETURNING {_COLUMNS}""")
_delete = text(f"DELETE FROM webhooks WHERE id = :id AND {_THEIRS}")
_secrets = text(f"SELECT secrets FROM webhooks WHERE id = :id AND {_THEIRS} FOR NO KEY UPDATE")
_set_secrets = text("""
    UPDATE webhooks SET secrets = CAST(:secrets AS jsonb), updated_at = now() WHERE id = :id""")
_disable = text("""
    WITH disabled AS (
        UPDATE webhooks SET enabled = FALSE, disabled_reason = :reason, updated_at = now()
        WHERE id = :id AND enabled
            AND (CAST(:seconds AS float) IS NULL OR failing_since < now() - make_interval(secs => :seconds))
        RETURNING id)
    SELECT id FROM disabled""")
# One that is on its way is left to who has it, and who finds its endpoint disabled gives it up as well.
_give_up = text("""
    UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL, completed_at = now(),
        claim = NULL, claimed_by = NULL, lease_until = NULL
    WHERE webhook_id = :id AND state = 'pending' AND (claim IS NULL OR claimed_by IS NULL)""")


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret as it is stored, in the order of age, newest first."""

    secret: str  # encrypted
    until: float | None = None  # seconds since the epoch; none for the one in force


def create(connection: Connection, owner_id: UUID, order: WebhookOrder, secret: str, limit: int) -> Webhook:
    """Needs a transaction. Raises TooManyWebhooks; NotFound when the account has just been deleted."""
    if connection.execute(_lock_owner, {"owner_id": owner_id}).first() is None:
        raise NotFound(what="account")
    if connection.execute(_count, {"owner_id": owner_id}).scalar_one() >= limit:
        raise TooManyWebhooks(limit=limit)
    values = {
        "id": new_id(),
        "owner_id": owner_id,
        "url": order.url,
        "event_types": [str(one) for one in dict.fromkeys(order.event_types)],
        "description": order.description,
        "enabled": order.enabled,
        "secrets": _written([Kept(seal(secret))]),
    }
    return _webhook(connection.execute(_insert, values).one())


def one(connection: Connection, webhook_id: UUID, owner_id: UUID | None) -> Webhook:
    """The endpoint if it is the owner's; None for ``owner_id`` stands for an administrator. Raises NotFound."""
    return _found(connection.execute(_one, {"id": webhook_id, "owner_id": owner_id}).one_or_none())


def page(connection: Connection, owner_id: UUID | None, *, after: UUID | None, limit: int) -> list[Webhook]:
    """Newest first, those older than ``after``."""
    rows = connection.execute(_page, {"owner_id": owner_id, "after": after, "limit": limit})
    return [_webhook(row) for row in rows]


def change(connection: Connection, webhook_id: UUID, owner_id: UUID | None, change: WebhookChange) -> Webhook:
    """Needs a transaction: disabling gives up what waits. Raises NotFound."""
    values = {
        "id": webhook_id,
        "owner_id": owner_id,
        "url": None if change.url is UNSET else change.url,
        "event_types": None if change.event_types is UNSET else [str(one) for one in dict.fromkeys(change.event_types)],
        "describe": change.description is not UNSET,
        "description": None if change.description is UNSET else change.description,
        "enabled": None if change.enabled is UNSET else change.enabled,
    }
    changed = _found(connection.execute(_change, values).one_or_none())
    if not changed.enabled:
        connection.execute(_give_up, {"id": webhook_id})
    return changed


def delete(connection: Connection, webhook_id: UUID, owner_id: UUID | None) -> None:
    """With its deliveries. Raises NotFound."""
    if not connection.execute(_delete, {"id": webhook_id, "owner_id": owner_id}).rowcount:
        raise NotFound(what="webhook")


def rotate(connection: Connection, webhook_id: UUID, owner_id: UUID | None) -> NewSecret:
    """A new secret; the one before signs as well for a day. Needs a transaction.

    Raises:
        NotFound: it is not there for this owner.
        Conflict: as many secrets as may sign at once were made within a day.
    """
    row = connection.execute(_secrets, {"id": webhook_id, "owner_id": owner_id}).one_or_none()
    if row is None:
        raise NotFound(what="webhook")
    now = datetime.now(UTC).timestamp()
    current, *older = in_force(row.secrets, now)
    until = now + OLD_SECRET_SECONDS
    kept = [Kept(current.secret, until), *older]
    if len(kept) >= SECRETS_AT_MOST:
        raise Conflict(reason=f"{len(kept)} secrets sign already; the oldest does for a day at most")
    secret = new_secret()
    connection.execute(_set_secrets, {"id": webhook_id, "secrets": _written([Kept(seal(secret)), *kept])})
    return NewSecret(secret=secret, previous_until=datetime.fromtimestamp(until, UTC))


def disable(connection: Connection, webhook_id: UUID, reason: DisabledReason, seconds: float | None = None) -> bool:
    """Switch it off and give up what waits for it; with ``seconds`` only if it has failed for longer. In a transaction.

    False when it was off already, or has not failed for so long.
    """
    values = {"id": webhook_id, "reason": str(reason), "seconds": seconds}
    disabled = connection.execute(_disable, values).first() is not None
    if disabled:
        connection.execute(_give_up, {"id": webhook_id})
    return disabled


def in_force(secrets: Any, now: float) -> list[Kept]:
    """The secrets that sign at this time, newest first; ``secrets`` is the column."""
    kept = msgspec.convert(secrets, list[Kept])
    return [one for one in kept if one.until is None or one.until > now]


def _written(kept: list[Kept]) -> str:
    return msgspec.json.encode(kept).decode()


def _found(row: Row[Any] | None) -> Webhook:
    if row is None:
        raise NotFound(what="webhook")
    return _webhook(row)


def _webhook(row: Row[Any]) -> Webhook:
    return msgspec.convert(dict(row._mapping), Webhook)

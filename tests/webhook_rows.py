"""Webhooks and their deliveries in this process's database, and the dispatcher's ticks without a broker."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from domain.errors.inference import MlFailed
from domain.webhooks import State, Webhook, WebhookChange, WebhookOrder, new_secret
from storage.database import autocommit, transaction
from storage.jobs import transitions
from storage.webhooks import endpoints, log
from tests import job_rows
from workers import webhooks
from workers.webhooks.delivering import deliver


def run(sent: list[tuple[str, str]]) -> int:
    """One tick, and every message it has sent; the number of messages."""
    webhooks.dispatch()
    taken = list(sent)
    sent.clear()
    for message in taken:
        deliver(*message)
    return len(taken)


def owner_of(job_id: UUID) -> UUID:
    owner: UUID = job_rows.row(job_id)["owner_id"]
    return owner


def endpoint(owner: UUID, url: str, secret: str | None = None, **order: Any) -> Webhook:
    with transaction() as connection:
        wanted = WebhookOrder(url=url, **order)
        return endpoints.create(connection, owner, wanted, secret or new_secret(), limit=10)


def seen(webhook: Webhook) -> Webhook:
    with autocommit() as connection:
        return endpoints.one(connection, webhook.id, None)


def delivered(webhook: Webhook, state: State | None = None) -> list[Any]:
    with autocommit() as connection:
        return log.page(connection, webhook.id, state=state, after=None, limit=100)


def alter(table: str, sets: str) -> None:
    with autocommit() as connection:
        connection.execute(text(f"UPDATE {table} SET {sets}"))


def due_now() -> None:
    alter("webhook_deliveries", "next_attempt_at = now() WHERE state = 'pending'")


def succeed(job_id: UUID) -> None:
    claim = job_rows.claim(job_id)
    with transaction() as connection:
        assert transitions.succeed(connection, claim, message=None, result=None)


def fail(job_id: UUID) -> None:
    claim = job_rows.claim(job_id)
    with transaction() as connection:
        assert transitions.fail(connection, claim, MlFailed(reason="no such profile"))


def give(job_ids: list[UUID], owner: UUID) -> None:
    """Make these jobs, and what has happened to them, the owner's."""
    with autocommit() as connection:
        connection.execute(text("UPDATE jobs SET owner_id = :o WHERE id = ANY(:ids)"), {"o": owner, "ids": job_ids})


def change(webhook: Webhook, **values: Any) -> Webhook:
    with transaction() as connection:
        return endpoints.change(connection, webhook.id, None, WebhookChange(**values))


def ping(webhook: Webhook) -> UUID:
    with autocommit() as connection:
        return log.ping(connection, webhook.id).id

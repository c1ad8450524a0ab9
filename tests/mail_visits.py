"""Mailboxes and visits to them in this very process: the steps `poll` and `fetch` without an engine around them."""

from typing import Any
from uuid import UUID

from msgspec import convert
from sqlalchemy import text

from domain.pipelines import Done, JobInStep, Outcome
from domain.recordings.mailboxes import MailboxOrder
from stack.imap import MailServer
from storage.database import autocommit, transaction
from storage.recordings import mailboxes, polling
from workers.recordings.fetch import fetch
from workers.recordings.poll import poll


class Heedful:
    """The engine's context, as far as a step alone needs it."""

    def progress(self, done: float, total: float, message: str | None = None) -> None:
        pass

    def checkpoint(self) -> None:
        pass


def mailbox_of(owner: UUID, mail: MailServer, **more: Any) -> UUID:
    order = convert({**mail.order(), **more}, MailboxOrder)
    with transaction() as connection:
        return mailboxes.create(connection, owner, order).id


def ordered(owner: UUID, mailbox_id: UUID, days_back: int | None = None) -> JobInStep:
    """The mailbox's job; the one before counts as over."""
    with transaction() as connection:
        connection.execute(text("UPDATE mailboxes SET job_id = NULL WHERE id = :id"), {"id": mailbox_id})
        ((made,), _) = polling.order_asked(connection, owner, mailbox_id, days_back)
    params = {"mailbox_id": str(mailbox_id)} | ({} if days_back is None else {"days_back": days_back})
    return JobInStep(id=made.event.job_id, owner_id=owner, kind="recordings", step="poll", attempt=1, params=params)


def polled(job: JobInStep) -> Outcome:
    outcome = poll(job, Heedful())
    if isinstance(outcome, Done):
        with transaction() as connection:
            for effect in outcome.effects:
                effect(connection)
    return outcome


def visited(owner: UUID, mailbox_id: UUID) -> Outcome:
    """Both steps; raises as they do."""
    job = ordered(owner, mailbox_id)
    outcome = polled(job)
    return fetch(job, Heedful()) if isinstance(outcome, Done) else outcome


def rows(statement: str, **values: Any) -> list[dict[str, Any]]:
    with autocommit() as connection:
        return [dict(row) for row in connection.execute(text(statement), values).mappings()]

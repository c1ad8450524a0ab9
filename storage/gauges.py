"""What must never grow, counted in one bounded statement on partial indexes, and how deep the broker's queues are."""

from typing import Any

import msgspec
from sqlalchemy import text

from storage.database import transaction

# Counting stops there: a backlog of a million is no reason for the gauges to be slow. It means "at least".
MOST = 100_000
_SECONDS = "1500ms"


def _count(condition: str) -> str:
    return f"(SELECT count(*) FROM (SELECT FROM jobs WHERE {condition} LIMIT {MOST}) AS few)"


_UNFINISHED = "admitted AND status IN ('queued', 'processing')"
_FREE = "claim IS NULL AND NOT awaiting AND admitted AND status IN ('queued', 'processing')"
_since = "extract(epoch FROM now() - {})::float".format
_mailboxes = """(SELECT count(*) FROM mailboxes WHERE disabled_reason <> 'admin') AS mailboxes_disabled,
        (SELECT count(*) FROM mailboxes WHERE enabled AND failures > 0) AS mailboxes_failing,
        (SELECT count(*) FROM mailboxes WHERE enabled AND scheduled AND next_poll_at < now() - interval '5 minutes')
            AS mailboxes_overdue"""
MAILBOXES = 500  # that have numbers of their own, the oldest
_numbers = f"""(SELECT COALESCE(jsonb_object_agg(few.id, jsonb_build_object(
            'numbers', COALESCE(numbers, '{{}}'), 'failures', failures,
            'seconds', {_since("checked_at")})), '{{}}')
        FROM (SELECT id, failures, checked_at FROM mailboxes ORDER BY id LIMIT {MAILBOXES}) AS few
        LEFT JOIN (
            SELECT mailbox_id, jsonb_object_agg(state, number) AS numbers FROM (
                SELECT mailbox_id, state, sum(number) AS number FROM mail_message_counts GROUP BY mailbox_id, state
            ) AS counted GROUP BY mailbox_id) AS summed ON mailbox_id = few.id) AS mailboxes"""
_asked = text(f"""
    WITH running AS (SELECT status, run_at FROM jobs WHERE {_UNFINISHED} LIMIT {MOST})
    SELECT
        {_count("status = 'pending'")} AS pending,
        (SELECT count(*) FROM running WHERE status = 'queued') AS queued,
        (SELECT count(*) FROM running WHERE status = 'processing') AS processing,
        {_count("status = 'queued' AND NOT admitted")} AS backlog,
        (SELECT COALESCE(jsonb_object_agg(status, number), '{{}}') FROM (
            SELECT status, count(*) AS number FROM (
                SELECT status FROM jobs WHERE completed_at > now() - interval '1 hour' LIMIT {MOST}) AS few
            GROUP BY status) AS counted) AS ended_last_hour,
        COALESCE((SELECT {_since("min(run_at)")} FROM running WHERE status = 'queued'), 0) AS oldest_queued_seconds,
        {_count("claim IS NOT NULL AND lease_until < now()")} AS past_lease,
        {_count("awaiting AND deadline_at < now()")} AS past_deadline,
        {_count(f"{_FREE} AND republish_at <= now() AND run_at <= now()")} AS unpublished,
        {
    _count("error_code IN ('worker_lost', 'step_timeout') AND completed_at > now() - interval '1 hour'")
} AS quarantined_last_hour,
        (SELECT count(*) FROM (SELECT FROM webhook_deliveries
            WHERE state = 'pending' AND next_attempt_at < now() - interval '1 minute' LIMIT {MOST}) AS few)
            AS webhooks_overdue,
        (SELECT COALESCE(jsonb_object_agg(state, number), '{{}}') FROM (
            SELECT state, sum(number) AS number FROM mail_message_counts
            WHERE state NOT IN ('matched', 'unmatched') GROUP BY state) AS counted) AS mail_messages,
        jsonb_build_object(
            'matched', (SELECT count(*) FROM (SELECT FROM recordings WHERE call_id IS NOT NULL LIMIT {MOST}) AS few),
            'unmatched', (SELECT count(*) FROM (SELECT FROM recordings WHERE status = 'unmatched' LIMIT {MOST}) AS few))
            AS recordings,
        {_mailboxes},
        {_numbers},
        (SELECT count(*) FROM (SELECT FROM mango_deliveries
            WHERE applied_at IS NULL AND error IS NULL AND received_at < now() - interval '1 minute'
            LIMIT {MOST}) AS few) AS mango_waiting,
        (SELECT count(*) FROM (SELECT FROM mango_deliveries WHERE error IS NOT NULL LIMIT {MOST}) AS few)
            AS mango_failed,
        (SELECT COALESCE(jsonb_object_agg(name, {_since("slot")}), '{{}}') FROM ticks) AS tick_seconds,
        (SELECT COALESCE(jsonb_object_agg(name, jsonb_build_object(
            'found', GREATEST(found, found_before), 'total', total, 'held', held,
            'seconds', {_since("passed_at")})), '{{}}') FROM housekeeping) AS housekeeping""")
_patience = text(f"SET LOCAL statement_timeout = '{_SECONDS}'")


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """A pass of housekeeping over everything; numbers as in ``storage.housekeeping``."""

    found: int  # in the last whole pass, or already more in the one under way
    total: int
    held: int
    seconds: float | None  # since its last end


class MailboxNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What one mailbox has come to."""

    numbers: dict[str, int]  # messages by state, recordings by status
    failures: int  # looks in a row that failed
    seconds: float | None  # since the last look


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine stands. Counts end at MOST, ages are in seconds."""

    pending: int
    queued: int  # whose turn it is; those of an owner over his limit are the backlog
    processing: int
    backlog: int
    ended_last_hour: dict[str, int]  # by status
    oldest_queued_seconds: float  # since it was its turn; 0 where nothing is queued
    past_lease: int
    past_deadline: int
    unpublished: int
    quarantined_last_hour: int
    webhooks_overdue: int  # deliveries that were due a minute ago
    mail_messages: dict[str, int]  # by state
    recordings: dict[str, int]  # by status
    mailboxes_disabled: int  # by what happened, not by an admin
    mailboxes_failing: int  # at their last look
    mailboxes: dict[str, MailboxNumbers]  # by id
    mailboxes_overdue: int  # that were to be looked into five minutes ago
    mango_waiting: int  # notifications of calls that were not applied within a minute
    mango_failed: int  # those that cannot be applied
    tick_seconds: dict[str, float]  # since the last slot that was taken, by tick
    housekeeping: dict[str, Pass]


def standing() -> Standing:
    """Ask Postgres.

    Raises:
        DatabaseUnavailable: it cannot be reached, or has not answered within 1.5 s.
    """
    with transaction() as connection:
        connection.execute(_patience)
        row: dict[str, Any] = dict(connection.execute(_asked).mappings().one())
    return msgspec.convert(row, Standing, strict=False)

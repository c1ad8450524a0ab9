"""The task `webhooks.deliver`: one attempt of one delivery, and then of the next one of the same endpoint."""

import random
import time
from uuid import UUID

import structlog

from domain.errors import MillraceError
from domain.webhooks import DisabledReason, next_delay
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.webhooks import deliveries, endpoints, sealing
from storage.webhooks.deliveries import Attempted, Claimed, Sending
from workers.holders import own_name
from workers.webhooks.request import post

LEASE_SECONDS = 15.0  # beyond the request's own limit, for recording it
IN_A_ROW_SECONDS = 20.0  # for which a place stays with an endpoint; then others have their turn

_log = structlog.get_logger()


def deliver(delivery_id: str, claim: str) -> None:
    """Make the attempt that the message is about and, as long as its endpoint answers well, those that are due next.

    An attempt cut off by a dying process has not failed: its claim runs out, and it is made again with the same id.
    """
    worker, lease = own_name(), settings().webhook_request_seconds + LEASE_SECONDS
    until = time.monotonic() + IN_A_ROW_SECONDS
    with autocommit() as connection:
        claimed = Claimed(id=UUID(delivery_id), claim=UUID(claim))
        sending = deliveries.take(connection, claimed, worker, lease)
    while sending is not None and _attempt(sending) and time.monotonic() < until:
        with autocommit() as connection:
            sending = deliveries.take_next(connection, sending.webhook_id, worker, lease)


def _attempt(sending: Sending) -> bool:
    """Whether it succeeded."""
    log = _log.bind(webhook_id=str(sending.webhook_id), delivery_id=str(sending.id))
    if not sending.enabled:
        with autocommit() as connection:
            deliveries.drop(connection, sending)
        return True
    try:
        secrets = [sealing.unseal(one.secret) for one in endpoints.in_force(sending.secrets, time.time())]
    except sealing.Unreadable:
        # ours to put right, and no fault of the receiver: it stays due, and shows as overdue
        log.exception("webhook_secret_unreadable", hint="WEBHOOK_ENCRYPTION_KEYS or JWT_SECRET has changed")
        return False
    done = post(sending, secrets)
    try:
        _record(sending, done)
    except MillraceError as error:
        log.warning("webhook_attempt_not_recorded", error=str(error))  # it will be made again
        return False
    log.info("webhook_attempted", status_code=done.status_code, fault=done.fault, milliseconds=done.milliseconds)
    return done.fault is None


def _record(sending: Sending, done: Attempted) -> None:
    config = settings()
    delay = None
    if done.fault is not None:
        jitter = random.uniform(-1, 1)  # noqa: S311  # nobody gains by guessing it
        delay = next_delay(config.webhook_delays, sending.failed_attempts + 1, jitter, done.retry_after)
    with transaction() as connection:
        if not deliveries.record(connection, sending, done, delay) or done.fault is None:
            return
        if done.status_code == 410:
            endpoints.disable(connection, sending.webhook_id, DisabledReason.GONE)
        else:
            endpoints.disable(connection, sending.webhook_id, DisabledReason.FAILING, config.webhook_disable_seconds)

"""The tick `webhooks.dispatch`: new events become deliveries, and those that are due get a message each."""

import time

import structlog

from storage import dispatch as broker
from storage.configuration import settings
from storage.database import transaction
from storage.webhooks import deliveries, feed
from workers import holders

QUEUE = "webhooks"
RUN_SECONDS = 5.0  # after which the next slot goes on with a backlog of events

_log = structlog.get_logger()


def dispatch() -> None:
    """Safe to run twice at once: the second leaves.

    Claims are committed before the messages are sent. Whatever of it dies, the events are read or the claims run out.
    """
    deadline = time.monotonic() + RUN_SECONDS
    while _collect() and time.monotonic() < deadline:
        pass
    failing = max(1, settings().webhook_concurrency // 2)
    with transaction() as connection:
        if not feed.hold(connection):
            return
        gone = [name for name in deliveries.holders(connection) if holders.is_gone(name)]
        claimed = deliveries.claim_due(connection, gone, failing)
    if not claimed:
        return
    if not broker.send("webhooks.deliver", QUEUE, [(str(one.id), str(one.claim)) for one in claimed]):
        with transaction() as connection:
            deliveries.release(connection, claimed)
    _log.debug("webhooks_dispatched", number=len(claimed))


def _collect() -> bool:
    """Whether there is more."""
    with transaction() as connection:
        return feed.hold(connection) and feed.collect(connection).more

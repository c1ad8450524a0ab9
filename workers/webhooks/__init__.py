"""Webhooks: the ticks that find what is to be delivered and remove what is old, and the task that delivers.

The tick runs beside the sweep; requests have a queue and a process of their own, whose threads may all wait for slow
receivers without keeping a step of any job from its worker.
"""

import time
from functools import partial

import structlog

from storage.configuration import settings
from storage.database import autocommit
from storage.webhooks import deliveries
from workers.retention import repeat
from workers.webhooks.delivering import deliver
from workers.webhooks.dispatching import dispatch

RUN_SECONDS = 10.0  # of retention at most
REMOVED = 500  # deliveries in a transaction

_log = structlog.get_logger()


def remove_old() -> None:
    """Remove the deliveries that have been kept for their time; two runs at once share the work."""
    seconds = settings().webhook_log_retention_seconds
    if seconds and (removed := repeat(partial(_some, seconds), REMOVED, time.monotonic() + RUN_SECONDS)):
        _log.info("removed_old_deliveries", number=removed)


def _some(seconds: float) -> int:
    with autocommit() as connection:
        return deliveries.remove_old(connection, seconds, REMOVED)


tasks = {"webhooks.deliver": deliver}
schedule = {
    "webhooks.dispatch": (dispatch, "sweep_seconds"),
    "webhooks.retention": (remove_old, "retention_sweep_seconds", "io"),
}

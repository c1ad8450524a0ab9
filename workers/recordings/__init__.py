"""Recordings: the steps of the pipeline that fetches them, and the ticks beside it."""

import time
from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Connection

from storage import objects
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.jobs.orders import set_going
from storage.recordings import expiry, keeping, polling
from workers.recordings.fetch import fetch
from workers.recordings.listening import listen
from workers.recordings.mango import apply, apply_waiting
from workers.recordings.match import match
from workers.recordings.matching import retry_unmatched
from workers.recordings.poll import poll
from workers.retention import repeat

DUE = 100  # mailboxes at once
RUN_SECONDS = 10.0  # of retention at most
REMOVED = 500  # rows in a transaction
COUNTED = 100_000  # changes to the numbers of messages that are added up at once

_log = structlog.get_logger()


def order_due() -> None:
    """A job for each mailbox whose time has come; two runs at once share the work."""
    with transaction() as connection:
        ordered = polling.order_due(connection, DUE)
    for one in ordered:
        set_going(one)


def remove_old() -> None:
    """Remove what has been kept for its time: notifications, recordings with their objects, then calls.

    Raises:
        StorageUnavailable: the store is away; no recording is removed, so that nothing is left over there.
    """
    config, deadline = settings(), time.monotonic() + RUN_SECONDS
    with autocommit() as connection:
        expiry.add_up(connection, COUNTED)
    removed = {
        "deliveries": _expire(expiry.remove_deliveries, config.mango_retention_seconds, deadline),
        "recordings": _recordings(config.recording_retention_seconds, deadline),
        "calls": _expire(expiry.remove_calls, config.call_retention_seconds, deadline),
    }
    if any(removed.values()):
        _log.info("removed_old", **removed)


def _expire(remove: Callable[[Connection, float, int], int], seconds: float, deadline: float) -> int:
    def batch() -> int:
        with autocommit() as connection:
            return remove(connection, seconds, REMOVED)

    return repeat(batch, REMOVED, deadline) if seconds else 0


def _recordings(seconds: float, deadline: float) -> int:
    if not seconds:
        return 0
    objects.listed("recordings/", "", 1)  # while the store is away every batch would leave objects behind
    return repeat(partial(_some, seconds), REMOVED, deadline)


def _some(seconds: float) -> int:
    with autocommit() as connection:
        keys = keeping.remove_old(connection, seconds, REMOVED)
    objects.delete(keys)
    return len(keys)


steps = {"poll": poll, "fetch": fetch, "match": match}
tasks = {"recordings.apply": apply}
schedule = {
    "recordings.due": (order_due, "mailbox_sweep_seconds"),
    "recordings.listen": (listen, "recording_listen_seconds", "cpu"),
    "recordings.retention": (remove_old, "retention_sweep_seconds", "io"),
    "recordings.unapplied": (apply_waiting, "call_sweep_seconds", "io"),
    "recordings.unmatched": (retry_unmatched, "call_sweep_seconds", "io"),
}

"""Recordings: the steps of the pipeline that fetches them, and the ticks beside it."""

import time
from functools import partial

import structlog

from storage import objects
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.jobs.orders import set_going
from storage.recordings import keeping, polling
from workers.recordings.fetch import fetch
from workers.recordings.listening import listen
from workers.recordings.mango import apply, apply_waiting
from workers.recordings.match import match
from workers.recordings.matching import retry_unmatched
from workers.recordings.poll import poll
from workers.retention import repeat

DUE = 100  # mailboxes at once
RUN_SECONDS = 10.0  # of retention at most
REMOVED = 500  # recordings in a transaction

_log = structlog.get_logger()


def order_due() -> None:
    """A job for each mailbox whose time has come; two runs at once share the work."""
    with transaction() as connection:
        ordered = polling.order_due(connection, DUE)
    for one in ordered:
        set_going(one)


def remove_old() -> None:
    """Remove recordings that have been kept for their time, with their objects. Raises StorageUnavailable."""
    seconds = settings().recording_retention_seconds
    if not seconds:
        return
    objects.listed("recordings/", "", 1)  # while the store is away every batch would leave objects behind
    if removed := repeat(partial(_some, seconds), REMOVED, time.monotonic() + RUN_SECONDS):
        _log.info("removed_old_recordings", number=removed)


def _some(seconds: float) -> int:
    with autocommit() as connection:
        keys = keeping.remove_old(connection, seconds, REMOVED)
    objects.delete(keys)
    return len(keys)


tasks = {"recordings.apply": apply}
steps = {"poll": poll, "fetch": fetch, "match": match}
tasks = {"recordings.apply": apply}
schedule = {
    "recordings.due": (order_due, "mailbox_sweep_seconds"),
    "recordings.listen": (listen, "recording_listen_seconds", "cpu"),
    "recordings.retention": (remove_old, "retention_sweep_seconds", "io"),
    "recordings.unapplied": (apply_waiting, "call_sweep_seconds", "io"),
    "recordings.unmatched": (retry_unmatched, "call_sweep_seconds", "io"),
}

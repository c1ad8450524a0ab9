"""The tick `jobs.retention`: what has been kept for its time is removed, in batches, for some seconds a run."""

import time
from collections.abc import Callable
from functools import partial

import structlog

from domain.errors.neighbours import StorageUnavailable
from storage import idempotency, objects
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.jobs import retention

RUN_SECONDS = 10.0  # of a run at most, and a batch of each kind: a worker of the steps is held meanwhile
JOBS = 20  # in a transaction: each may have 100,000 rows of results, and as many of its archive's listing
TRIMMED = 200  # jobs whose events or attempts go in a transaction
KEYS = 1000

_log = structlog.get_logger()


def remove_expired() -> None:
    """Remove expired idempotency keys, details of old jobs, then old jobs with their files.

    Each batch is a transaction of its own, and two runs at once share the work.

    Raises:
        StorageUnavailable: the store is away; no further job is removed, so that nothing is left over there.
    """
    config = settings()
    deadline = time.monotonic() + RUN_SECONDS
    counts = {
        "idempotency_keys": repeat(_keys, KEYS, deadline),
        "trimmed_of_events": repeat(_trim("events", config.event_retention_seconds), TRIMMED, deadline),
        "trimmed_of_attempts": repeat(_trim("attempts", config.attempt_retention_seconds), TRIMMED, deadline),
        "jobs": _jobs(config.job_retention_seconds, deadline),
    }
    if any(counts.values()):
        _log.info("removed_expired", **counts)


def repeat(batch: Callable[[], int], full: int, deadline: float) -> int:
    """The sum of what the batches removed, until one is not full or time is over."""
    total = 0
    while True:
        number = batch()
        total += number
        if number < full or time.monotonic() > deadline:
            return total


def _keys() -> int:
    with autocommit() as connection:
        return idempotency.remove_expired(connection, KEYS)


def _trim(name: str, seconds: float) -> Callable[[], int]:
    what = {"events": retention.EVENTS, "attempts": retention.ATTEMPTS}[name]

    def batch() -> int:
        if not seconds:
            return 0
        with transaction() as connection:
            return retention.trim(connection, what, name, seconds, TRIMMED)

    return batch


def _jobs(seconds: float, deadline: float) -> int:
    with autocommit() as connection:
        if not seconds or not retention.has_expired(connection, seconds):
            return 0
    objects.listed("results/", "", 1)  # while the store is away every batch would leave objects behind
    return repeat(partial(_some_jobs, seconds), JOBS, deadline)


def _some_jobs(seconds: float) -> int:
    with transaction() as connection:
        removed = retention.remove(connection, seconds, JOBS)
    # the first result is where a job that failed may have left one, too; a key that is not there does no harm
    keys = [*removed.keys, *(objects.result_key(job_id, 1) for job_id in removed.jobs)]
    try:
        objects.delete(dict.fromkeys(keys))
    except StorageUnavailable:
        _log.warning("objects_left_to_reconciliation", number=len(keys))
        raise
    return len(removed.jobs)

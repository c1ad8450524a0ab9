"""Recordings find their calls: when a call has changed, and by a tick for those that had no chance."""

import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from storage.configuration import settings
from storage.database import transaction
from storage.recordings import matching

RUN_SECONDS = 5.0
RETRY_SECONDS = 600.0  # until a recording is tried again though nothing has happened to a call around it

_log = structlog.get_logger()


def match_around(call_ids: Sequence[UUID]) -> int:
    """Match what waits for one of these calls; the number of recordings matched."""
    if not call_ids:
        return 0
    with transaction() as connection:
        matched = matching.match_new(connection, matching.around(connection, call_ids))
    if matched:
        _log.info("recordings_matched", number=matched, by="call")
    return matched


def retry_unmatched() -> None:
    """Try those again that were not tried for ten minutes: what died between a call and its recordings is made up for.

    Two runs at once take turns by the transaction, and the second finds what the first has left.
    """
    deadline = time.monotonic() + RUN_SECONDS
    days = settings().recording_match_days
    while time.monotonic() < deadline:
        with transaction() as connection:
            due = matching.due(connection, days, RETRY_SECONDS)
            matched = matching.match_new(connection, due)
        if matched:
            _log.info("recordings_matched", number=matched, by="retry")
        if len(due) < matching.BATCH:
            return

"""The tick `direct.sweep`: uploads straight to the storage that nobody completed in time go, with what came of them.

What a death in the middle leaves over there has no row any more; `files.reconcile` deletes it when it is old.
"""

import time

import structlog

from storage import direct
from storage.database import autocommit

RUN_SECONDS = 10.0  # of a run at most: a worker of the steps is held meanwhile
BATCH = 20

_log = structlog.get_logger()


def remove_expired() -> None:
    """Safe to run twice at once: each takes out others."""
    deadline = time.monotonic() + RUN_SECONDS
    expired = None
    while time.monotonic() < deadline and (expired is None or len(expired) == BATCH):
        with autocommit() as connection:
            expired = direct.remove_expired(connection, BATCH)
        all(map(direct.delete_leftovers, expired))  # a store that is away is not asked for each of them
        if expired:
            _log.info("direct_uploads_expired", number=len(expired))


schedule = {"direct.sweep": (remove_expired, "reconcile_seconds", "io")}

"""Keeping claims alive: one thread per worker process extends the leases of all steps running in it."""

import os
import threading
import time
from uuid import UUID

import structlog

from domain.errors import DatabaseUnavailable
from storage.configuration import settings
from storage.database import autocommit
from storage.jobs import transitions
from storage.jobs.transitions import Claim

_log = structlog.get_logger()


class Hold:
    """A running step's claim, and what the heartbeat has learnt about it."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.cancelled = False
        self.lost = False


class Heartbeat:
    """Extends the leases of the steps in ``holding`` three times in their length.

    A step shorter than that costs no statement. When Postgres cannot be reached the leases run out by its clock; the
    step's commit then finds its claim gone, if another worker has taken it, and changes nothing.
    """

    def __init__(self) -> None:
        self._holds: dict[UUID, Hold] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, hold: Hold) -> None:
        with self._lock:
            self._holds[hold.claim.token] = hold
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()

    def drop(self, hold: Hold) -> None:
        with self._lock:
            self._holds.pop(hold.claim.token, None)

    def _beat(self) -> None:
        lease = settings().lease_seconds
        while True:
            time.sleep(lease / 3)
            with self._lock:
                holds = dict(self._holds)
            if holds:
                try:
                    self._extend(holds, lease)
                except Exception:
                    # e.g. a standby that is read-only for the moment; without this thread every later step is lost
                    _log.exception("heartbeat_failed")

    def _extend(self, holds: dict[UUID, Hold], lease: float) -> None:
        try:
            with autocommit() as connection:
                standing = transitions.heartbeat(connection, list(holds), lease)
        except DatabaseUnavailable as error:
            _log.warning("leases_not_extended", error=str(error), claims=len(holds))
            return
        for token, hold in holds.items():
            hold.lost = token not in standing
            hold.cancelled = standing.get(token, False)


heartbeat = Heartbeat()


def _start_anew() -> None:
    # threads do not survive a fork, and neither do the claims of the parent
    global heartbeat  # noqa: PLW0603
    heartbeat = Heartbeat()


os.register_at_fork(after_in_child=_start_anew)

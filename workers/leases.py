"""Keeping claims alive: one thread per worker process extends the leases of all steps running in it."""

import os
import signal
import threading
import time
from uuid import UUID

import structlog

from domain.errors.jobs import StepTimeout
from domain.errors.neighbours import DatabaseUnavailable
from storage.configuration import settings
from storage.database import autocommit
from storage.events import announce
from storage.jobs import transitions
from storage.jobs.transitions import Claim

QUARANTINE_AFTER = 3  # a step that has taken its worker with it so often is not given another

_log = structlog.get_logger()


class Hold:
    """A running step's claim, and what the heartbeat has learnt about it."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.cancelled = False
        self.lost = False
        self.seconds = 0.0
        self._ends_at = float("inf")

    def begin(self, seconds: float) -> None:
        """A step begins that may take ``seconds``."""
        self.seconds, self._ends_at = seconds, time.monotonic() + seconds

    @property
    def overrun(self) -> bool:
        return time.monotonic() > self._ends_at


class Heartbeat:
    """Extends the leases of the steps it keeps, three times in their length and at least once a second.

    The same statement tells which jobs are to be cancelled. A step shorter than that costs no statement.
    When Postgres cannot be reached the leases run out by its clock; the
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
            time.sleep(min(lease / 3, 1.0))
            with self._lock:
                holds = dict(self._holds)
            if holds:
                try:
                    for hold in holds.values():
                        if hold.overrun:
                            self._stop_hanging(hold)
                    self._extend(holds, lease)
                except Exception:
                    # e.g. a standby that is read-only for the moment; without this thread every later step is lost
                    _log.exception("heartbeat_failed")

    def _stop_hanging(self, hold: Hold) -> None:
        """Give a step that runs too long to others, and end this process: there is no other way out of a step."""
        claim = hold.claim
        error = StepTimeout(seconds=hold.seconds, losses=QUARANTINE_AFTER)
        with autocommit() as connection:
            moved = transitions.overrun(connection, claim, error, QUARANTINE_AFTER)
        if moved is None:
            return  # it has come to its end after all
        announce([(moved.owner_id, moved.event)])
        _log.error("step_overran", job_id=str(claim.job.id), step=claim.job.step, seconds=hold.seconds)
        end_process()

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


def end_process() -> None:
    """Celery's main process sees its child die and starts another."""
    os.kill(os.getpid(), signal.SIGKILL)


heartbeat = Heartbeat()


def _start_anew() -> None:
    # threads do not survive a fork, and neither do the claims of the parent
    global heartbeat  # noqa: PLW0603
    heartbeat = Heartbeat()


os.register_at_fork(after_in_child=_start_anew)

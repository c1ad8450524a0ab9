"""What a running step sees of the engine: reporting progress, and leaving when it should."""

import math
import time
from datetime import UTC, datetime
from typing import Any

from domain.jobs import Event, EventType, Status
from domain.pace import Pace
from domain.pipelines import Pipeline
from storage.database import autocommit
from storage.events import announce
from storage.jobs import transitions
from workers.leases import Hold
from workers.stops import Cancelled, ClaimGone

ANNOUNCE_SECONDS = 0.1  # ten a second is as much as an eye can follow
STORE_SECONDS = 0.5


class StepContext:
    """The ``domain.pipelines.Context`` of one attempt."""

    def __init__(self, hold: Hold, pipeline: Pipeline) -> None:
        self._hold = hold
        job = hold.claim.job
        self._from, self._to = pipeline.starts_at(job.step), pipeline.step(job.step).until
        self._percent = self._from
        self._announced = time.monotonic()  # a step that ends before its first announcement costs no statement
        self._stored = 0.0  # the first report is stored: it learns what an earlier attempt has reached
        self._part: tuple[int, int] | None = None
        self._pace = Pace(0.0, 0.0)

    def checkpoint(self) -> None:
        if self._hold.lost:
            raise ClaimGone
        if self._hold.cancelled:
            raise Cancelled

    def progress(
        self, done: float, total: float, message: str | None = None, *, part: tuple[int, int] = (1, 1)
    ) -> None:
        self.checkpoint()
        now = time.monotonic()
        if now - self._announced < ANNOUNCE_SECONDS:
            return
        share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
        number, parts = part
        whole = (number - 1 + share) / parts
        self._percent = max(self._percent, self._from + int(whole * (self._to - self._from)))
        left = self._left(share, now, part)
        if now - self._stored >= STORE_SECONDS:
            self._stored = now
            with autocommit() as connection:
                standing = transitions.progress(connection, self._hold.claim, self._percent, message, left)
            if standing is None:
                raise ClaimGone
            self._percent = standing
        self._announced = now
        job = self._hold.claim.job
        data: dict[str, Any] = {"status": Status.PROCESSING, "stage": job.step, "progress": self._percent}
        if message:
            data["message"] = message
        if left is not None:
            data["eta_seconds"] = math.ceil(left)
        event = Event(job_id=job.id, type=EventType.PROGRESS, at=datetime.now(UTC), data=data)
        announce([(job.owner_id, event)])

    def _left(self, share: float, now: float, part: tuple[int, int]) -> float | None:
        if part != self._part:
            self._part, self._pace = part, Pace(share, now)
        return self._pace.left(share, now) if part[0] == part[1] else None

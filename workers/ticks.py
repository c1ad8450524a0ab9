"""Ticks: what the schedule runs, each slot once, whatever beats, clocks and messages do.

A beat only says "it may be time". Whether it is, the database decides (``storage.ticks``), so a second beat, a message
that comes twice or an hour late, and an hour's worth of messages cost one statement each and run nothing twice.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from celery.schedules import schedule

from storage import ticks
from storage.database import autocommit

# Messages for each slot: with one, a beat that is some milliseconds early or late could miss a slot altogether.
PER_SLOT = 2

_started_at, _started = datetime.now(UTC), time.monotonic()


def steady() -> datetime:
    """A clock that nobody can set: the time of this process's start and what has passed since."""
    return _started_at + timedelta(seconds=time.monotonic() - _started)


class Every(schedule):  # type: ignore[misc]  # celery has no types
    """A beat's interval that survives clocks being set: with Celery's own, an hour back is an hour of silence."""

    def __init__(
        self,
        run_every: float | timedelta,
        relative: bool = False,  # Celery's signature: the beat keeps its entries pickled
        nowfun: Callable[[], datetime] | None = None,
        app: object = None,
    ) -> None:
        super().__init__(run_every=run_every, relative=relative, nowfun=nowfun or steady, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        left: timedelta = super().remaining_estimate(last_run_at)
        # the beat keeps the last run on disk: one whose clock was ahead may have left a time that is still to come
        return left if left <= self.run_every else timedelta(0)


def entry(name: str, seconds: float, queue: str) -> dict[str, object]:
    """The beat's entry of a tick with a slot every ``seconds``.

    No `expires`: the worker's clock would decide by it, and what comes late finds its slot taken anyway.
    """
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)  # so a beat that starts for the first time sends at once
    options = {"queue": queue}
    return {"task": name, "schedule": Every(seconds / PER_SLOT), "last_run_at": long_ago, "options": options}


def once_a_slot(name: str, function: Callable[[], None], seconds: float) -> Callable[[], None]:
    """``function`` for the first caller in each slot; the others leave."""

    def tick() -> None:
        with autocommit() as connection:
            taken = ticks.take(connection, name, seconds)
        if taken:
            function()

    return tick

"""The circuit breaker as a step uses it: may I try, and how did it go.

What is known of a circuit is kept for a second in each process, so that a healthy neighbour costs one short query a
second and process, and not one a job. Failures in a row are counted in Postgres; what another process has heard since
the last look may be missing from "in a row", which at worst opens the circuit some requests early.
"""

import os
import time
from functools import cache
from uuid import UUID

import structlog

from domain.errors.neighbours import DatabaseUnavailable
from storage import circuits
from storage.circuits import Standing
from storage.configuration import settings
from storage.database import autocommit

FRESH_SECONDS = 1.0

_log = structlog.get_logger()


class Circuit:
    """One circuit as this process knows it. Never raises: without a database it lets everything through, for then it
    is the engine that cannot go on."""

    def __init__(self, name: str, *, failures: int, seconds: float, probe_seconds: float) -> None:
        """Opens after ``failures`` in a row for ``seconds``; a probe has ``probe_seconds`` to say how it went."""
        self.name = name
        self._failures, self._seconds, self._probe_seconds = failures, seconds, probe_seconds
        self._known = Standing()
        self._read_at = -FRESH_SECONDS

    def is_closed(self) -> bool:
        """Whether all goes well, for what may as well not be done at all."""
        try:
            self._look()
        except DatabaseUnavailable:
            return False
        return self._known.opened_for is None

    def admits(self, job_id: UUID) -> bool:
        """Whether the job may try now; while the circuit is half-open, whether it is the one that may."""
        try:
            self._look()
            if self._known.opened_for is None:
                return True
            if self._opened_for() > 0:
                return False
            with autocommit() as connection:
                if circuits.take_probe(connection, self.name, job_id, self._probe_seconds):
                    return True
                self._learn(circuits.read(connection, self.name))  # closed meanwhile, open again, or another's to try
        except DatabaseUnavailable as error:
            _log.warning("circuit_not_known", circuit=self.name, error=str(error))
            return True
        return self._known.opened_for is None

    def failed(self, job_id: UUID, retry_after: float | None = None) -> bool:
        """Count a failure of the neighbour, which may have asked for so many seconds; whether the circuit is open."""
        was_closed = self._known.opened_for is None
        try:
            with autocommit() as connection:
                standing = circuits.failed(
                    connection,
                    self.name,
                    job_id,
                    threshold=self._failures,
                    seconds=self._seconds,
                    at_least=retry_after or 0.0,
                )
        except DatabaseUnavailable as error:
            _log.warning("failure_not_counted", circuit=self.name, error=str(error))
            return False
        self._learn(standing)
        if standing.opened_for is None:
            return False
        if was_closed:
            _log.warning("circuit_open", circuit=self.name, failures=standing.failures)
        return True

    def succeeded(self, job_id: UUID) -> None:
        """The neighbour has answered; a statement only when there are failures to forget."""
        if self._known == Standing():
            return
        try:
            with autocommit() as connection:
                if circuits.succeeded(connection, self.name, job_id) and self._known.opened_for is not None:
                    _log.info("circuit_closed", circuit=self.name, failures=self._known.failures)
                self._learn(circuits.read(connection, self.name))
        except DatabaseUnavailable as error:
            _log.warning("success_not_counted", circuit=self.name, error=str(error))

    def _look(self) -> None:
        if time.monotonic() - self._read_at >= FRESH_SECONDS:
            with autocommit() as connection:
                self._learn(circuits.read(connection, self.name))

    def _learn(self, standing: Standing) -> None:
        self._known, self._read_at = standing, time.monotonic()

    def _opened_for(self) -> float:
        return (self._known.opened_for or 0.0) - (time.monotonic() - self._read_at)


@cache
def ml() -> Circuit:
    """The ML service's circuit in this process."""
    config = settings()
    return Circuit(
        "ml",
        failures=config.ml_circuit_failures,
        seconds=config.ml_circuit_seconds,
        probe_seconds=config.ml_probe_seconds,
    )


os.register_at_fork(after_in_child=ml.cache_clear)

"""Circuit breakers in Postgres, so that all processes agree whether a neighbour is to be left alone.

A circuit without ``opened_until`` is closed, and one without a row as well. It opens after a number of failures in a
row; when its time is up it is half-open and one job at a time, the probe, may try. A probe that succeeds closes it, one
that fails opens it anew, for twice as long each time up to ``LONGEST`` times. Every clock is the database's.

M. Nygard, Release It!, 2nd edition, "Circuit Breaker".
"""

from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, Column, Connection, DateTime, Integer, SmallInteger, Table, Text, Uuid, text

from storage.database import metadata

LONGEST = 4  # times the seconds it is opened for at first
WOKEN_AT_ONCE = 500  # jobs of a batch

_time = DateTime(timezone=True)

circuits = Table(
    "circuits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),  # in a row
    Column("opened_until", _time),
    Column("probes", SmallInteger, nullable=False, server_default=text("0")),  # that failed since it opened
    Column("probe", Uuid),  # the job that may try while it is half-open
    Column("probe_until", _time),  # a probe whose worker died must not keep it open for ever
    Column("closed_at", _time),
    CheckConstraint("(probe IS NULL) = (probe_until IS NULL)", name="probe_has_end"),
    CheckConstraint("probe IS NULL OR opened_until IS NOT NULL", name="closed_has_no_probe"),
)

_standing = "failures, EXTRACT(EPOCH FROM opened_until - now()) AS opened_for"
_read = text(f"SELECT {_standing} FROM circuits WHERE name = :name")
_take_probe = text("""
    UPDATE circuits SET probe = :job_id, probe_until = now() + make_interval(secs => :seconds)
    WHERE name = :name AND opened_until <= now() AND (probe IS NULL OR probe = :job_id OR probe_until < now())""")
# A failure that began before the circuit opened, and is no probe, changes nothing but the count.
_failed = text(f"""
    INSERT INTO circuits AS known (name, failures, opened_until)
    VALUES (:name, 1, CASE WHEN :threshold <= 1 THEN now() + make_interval(secs => GREATEST(:seconds, :at_least)) END)
    ON CONFLICT (name) DO UPDATE SET
        failures = known.failures + 1,
        opened_until = CASE
            WHEN known.opened_until IS NULL AND known.failures + 1 >= :threshold
                THEN now() + make_interval(secs => GREATEST(:seconds, :at_least))
            WHEN known.probe = :job_id THEN now() + make_interval(
                secs => GREATEST(LEAST(:seconds * 2 ^ LEAST(known.probes + 1, 16), :longest), :at_least))
            ELSE known.opened_until END,
        probes = CASE WHEN known.probe = :job_id THEN LEAST(known.probes + 1, 1000) ELSE known.probes END,
        probe = NULLIF(known.probe, :job_id),
        probe_until = CASE WHEN known.probe = :job_id THEN NULL ELSE known.probe_until END
    RETURNING {_standing}""")
# While it is open only the probe's word counts: what others hear now was sent before.
_succeeded = text("""
    UPDATE circuits SET failures = 0, opened_until = NULL, probes = 0, probe = NULL, probe_until = NULL,
        closed_at = CASE WHEN opened_until IS NULL THEN closed_at ELSE now() END
    WHERE name = :name AND failures > 0 AND (opened_until IS NULL OR probe = :job_id)""")

_WAKE = "run_at = now(), republish_at = now(), publishes = 0, circuit = NULL"
# The one that was tried the longest ago, so that a job which makes the neighbour fail is not the probe every time.
_wake_probe = text(f"""
    WITH chosen AS (
        SELECT circuits.name, waiting.id FROM circuits CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE jobs.circuit = circuits.name
            ORDER BY claimed_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS waiting
        WHERE opened_until <= now() AND (probe IS NULL OR probe_until < now())
        FOR NO KEY UPDATE OF circuits SKIP LOCKED),
    reserved AS (
        UPDATE circuits SET probe = chosen.id, probe_until = now() + make_interval(secs => :seconds)
        FROM chosen WHERE circuits.name = chosen.name)
    UPDATE jobs SET {_WAKE} FROM chosen WHERE jobs.id = chosen.id""")
# 16 in the first second after it has closed, then twice as many each second: a neighbour that has just come back is
# not to be knocked over by everything that has waited for it.
_wake = text(f"""
    UPDATE jobs SET {_WAKE} WHERE id IN (
        SELECT id FROM jobs WHERE circuit IS NOT NULL
            AND NOT EXISTS (SELECT FROM circuits WHERE name = jobs.circuit AND opened_until IS NOT NULL)
        ORDER BY claimed_at
        LIMIT (SELECT LEAST({WOKEN_AT_ONCE}, 16 * 2 ^ LEAST(COALESCE(
            EXTRACT(EPOCH FROM now() - max(closed_at)), 5), 5))::int FROM circuits)
        FOR NO KEY UPDATE SKIP LOCKED)""")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit as it was when it was read."""

    failures: int = 0  # in a row
    opened_for: float | None = None  # seconds it stays open; 0 or less: half-open; None: closed


def read(connection: Connection, name: str) -> Standing:
    row = connection.execute(_read, {"name": name}).one_or_none()
    return Standing() if row is None else _standing_of(row.failures, row.opened_for)


def take_probe(connection: Connection, name: str, job_id: UUID, seconds: float) -> bool:
    """Whether this job may try, of all that wait for the half-open circuit; it has ``seconds`` to say how it went."""
    return connection.execute(_take_probe, {"name": name, "job_id": job_id, "seconds": seconds}).rowcount == 1


def failed(
    connection: Connection, name: str, job_id: UUID, *, threshold: int, seconds: float, at_least: float = 0.0
) -> Standing:
    """Count a failure; the ``threshold``-th in a row opens the circuit for ``seconds``, a probe's opens it anew.

    ``at_least``: what the neighbour has asked for, honoured up to ``LONGEST`` times ``seconds``.
    """
    values = {"name": name, "job_id": job_id, "threshold": threshold, "seconds": seconds, "longest": LONGEST * seconds}
    row = connection.execute(_failed, {**values, "at_least": min(at_least, LONGEST * seconds)}).one()
    return _standing_of(row.failures, row.opened_for)


def succeeded(connection: Connection, name: str, job_id: UUID) -> bool:
    """Forget the failures and close the circuit; False when there was nothing to forget, or it is not ours to close."""
    return connection.execute(_succeeded, {"name": name, "job_id": job_id}).rowcount == 1


def wake(connection: Connection, probe_seconds: float) -> int:
    """Make due the jobs that a circuit lets through by now: one probe for a half-open one, a batch for a closed one.

    For the sweep. A probe that is woken has the circuit reserved for ``probe_seconds``. Answers how many were woken.
    """
    probes = connection.execute(_wake_probe, {"seconds": probe_seconds}).rowcount
    return probes + connection.execute(_wake).rowcount


def _standing_of(failures: int, opened_for: float | None) -> Standing:
    return Standing(failures=failures, opened_for=None if opened_for is None else float(opened_for))

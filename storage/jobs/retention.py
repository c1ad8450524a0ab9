"""What is removed of jobs that have ended, in bounded batches by the time they ended."""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import Connection, TextClause, text

from domain.jobs import FINAL
from storage import files, housekeeping
from storage.housekeeping import Progress

_final = ", ".join(repr(str(status)) for status in sorted(FINAL))
_PAST = "completed_at < now() - make_interval(secs => :seconds)"

_remove = text(f"""
    WITH old AS (SELECT id FROM jobs WHERE {_PAST} ORDER BY completed_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    DELETE FROM jobs USING old WHERE jobs.id = old.id
    RETURNING jobs.id, jobs.owns_input, jobs.input_file_id, jobs.result_key""")
# The file of a removed job that others work on goes with the last of them.
_pass_on = text("UPDATE jobs SET owns_input = TRUE WHERE input_file_id = ANY(:ids) AND NOT owns_input")

_expired = text(f"SELECT EXISTS (SELECT FROM jobs WHERE {_PAST})")
_finished = text(f"""
    SELECT id, completed_at FROM jobs WHERE {_PAST} AND (completed_at, id) > (:at, :id)
    ORDER BY completed_at, id LIMIT :limit""")
EVENTS = text(f"DELETE FROM job_events WHERE job_id = ANY(:ids) AND type NOT IN ({_final})")
ATTEMPTS = text("DELETE FROM job_attempts WHERE job_id = ANY(:ids)")
_BEGINNING = "1970-01-01T00:00:00+00:00 00000000-0000-0000-0000-000000000000"


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[UUID]
    keys: list[str]  # of their objects, to be deleted after the commit


def has_expired(connection: Connection, seconds: float) -> bool:
    """Whether there is a job that ended more than ``seconds`` ago."""
    return bool(connection.execute(_expired, {"seconds": seconds}).scalar_one())


def remove(connection: Connection, seconds: float, limit: int) -> Removed:
    """Delete at most ``limit`` jobs that ended more than ``seconds`` ago, with everything that belongs to them and the
    files that came with them, unless other jobs work on those. Needs a transaction; two at once share the work."""
    gone = connection.execute(_remove, {"seconds": seconds, "limit": limit}).all()
    owned = {"ids": sorted({row.input_file_id for row in gone if row.owns_input and row.input_file_id})}
    keys = [row.result_key for row in gone if row.result_key]
    if owned["ids"]:
        removed = files.remove(connection, owned["ids"], unused=True)
        if removed.number < len(owned["ids"]):
            connection.execute(_pass_on, owned)
        keys += removed.keys
    return Removed(jobs=[row.id for row in gone], keys=keys)


def trim(connection: Connection, what: TextClause, name: str, seconds: float, limit: int) -> int:
    """Remove ``what`` (EVENTS or ATTEMPTS) of the next ``limit`` jobs that ended more than ``seconds`` ago; the answer
    is their number. Needs a transaction; nothing happens while another run is at it.

    How far it has come is kept below ``name``: jobs end in the order of time, so none is ever looked at twice.
    """
    place = housekeeping.hold(connection, name)
    if place is None:
        return 0
    at, last = (place.after or _BEGINNING).split()
    values = {"seconds": seconds, "limit": limit, "at": datetime.fromisoformat(at), "id": UUID(last)}
    jobs = connection.execute(_finished, values).all()
    if jobs:
        removed = connection.execute(what, {"ids": [job.id for job in jobs]}).rowcount
        after = f"{jobs[-1].completed_at.isoformat()} {jobs[-1].id}"
        housekeeping.advance(connection, name, place.version, Progress(after=after, found=removed))
    return len(jobs)

"""How many of an owner's jobs are under way at once, and in which lane of the broker each goes.

The jobs above the limit wait in Postgres, where they cost the broker nothing. Those below it share the broker with
everybody's: its queues have ten lanes, of which the first is emptied first, and a job's lane says how many of its own
owner's are before it. So one owner's hundred jobs and another's single one meet as equals in the first lane, whatever
came first, and an urgent job goes before the others of its owner only. What stays too long in a lane moves up at each
time it is published again; a step that was begun and lost its worker goes to the first.

Counting and admitting happen under a lock per owner, so the limit is exact however many processes admit.
"""

from uuid import UUID

from sqlalchemy import Connection, text

from storage.jobs.sweep import Due, due_of

LAST_LANE = 9


def lane(ahead: str) -> str:
    """SQL: the lane of a job that ``ahead`` of its owner's jobs come before; twice as many in each as in the last."""
    return f"LEAST({LAST_LANE}, CEIL(LOG(2.0, {ahead} + 1)))::smallint"


# How many of an owner's are under way, and how many of them a new job of each priority has before it: those that wait
# for somebody else are in nobody's way.
COUNTED = """
    SELECT count(*) AS running, ARRAY[
        count(*) FILTER (WHERE NOT awaiting AND priority <= 0), count(*) FILTER (WHERE NOT awaiting AND priority <= 1),
        count(*) FILTER (WHERE NOT awaiting)] AS ahead
    FROM jobs WHERE owner_id = :owner_id AND admitted AND status IN ('queued', 'processing')"""

_LOCK = "hashtextextended('jobs of ' || CAST(:owner_id AS text), 0)"
_lock = text(f"SELECT pg_advisory_xact_lock({_LOCK})")
_try_lock = text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
_admit = text(f"""
    WITH counted AS ({COUNTED}), chosen AS (
        SELECT id, priority FROM jobs
        WHERE owner_id = :owner_id AND status = 'queued' AND NOT admitted AND cancel_requested_at IS NULL
        ORDER BY priority, id LIMIT GREATEST(:limit - (SELECT running FROM counted), 0)
        FOR NO KEY UPDATE SKIP LOCKED),
    placed AS (
        SELECT id, {lane("ahead[priority + 1] + row_number() OVER (ORDER BY priority, id) - 1")} AS lane
        FROM chosen, counted)
    UPDATE jobs SET admitted = TRUE, published_at = now(), publishes = 1, run_at = now(), lane = placed.lane,
        republish_at = now() + make_interval(secs => :republish)
    FROM placed WHERE jobs.id = placed.id
    RETURNING jobs.id, jobs.kind, jobs.step, jobs.lane""")
_free = text(f"SELECT :limit - running FROM ({COUNTED}) AS counted")
_waiting = text("""
    SELECT DISTINCT owner_id FROM jobs WHERE status = 'queued' AND NOT admitted LIMIT 1000""")


def lock(connection: Connection, owner_id: UUID) -> None:
    """Let nobody else count or admit this owner's jobs until the end of the transaction."""
    connection.execute(_lock, {"owner_id": owner_id})


def admit(
    connection: Connection, owner_id: UUID, *, limit: int, batch: int, republish: float, patient: bool = True
) -> list[Due]:
    """Admit what the limit has room for, by priority and age; to be published after the commit. Needs a transaction.

    Nothing happens while fewer than ``batch`` places are free: filling up in batches costs a long backlog one
    transaction for many jobs instead of one for each. Nor, without ``patient``, while somebody else has the lock.
    """
    values = {"owner_id": owner_id, "limit": limit}
    if patient:
        lock(connection, owner_id)
    elif not connection.execute(_try_lock, {"owner_id": owner_id}).scalar_one():
        return []
    if connection.execute(_free, values).scalar_one() < batch:
        return []
    admitted = [due_of(row) for row in connection.execute(_admit, {**values, "republish": republish})]
    return sorted(admitted, key=lambda due: (due.lane, due.job_id))


def owners_waiting(connection: Connection) -> list[UUID]:
    """Owners with jobs that are not admitted."""
    return list(connection.execute(_waiting).scalars())

"""How many of an owner's jobs are under way at once: the rest wait in Postgres, where they cost the broker nothing.

So one owner's ten thousand jobs put at most the limit in front of another's single one. Counting and admitting happen
under a lock per owner, so the limit is exact however many processes admit.
"""

from uuid import UUID

from sqlalchemy import Connection, text

from storage.jobs.sweep import Due, due_of

RUNNING = "(SELECT count(*) FROM jobs WHERE owner_id = :owner_id AND admitted AND status IN ('queued', 'processing'))"

_lock = text("SELECT pg_advisory_xact_lock(hashtextextended('jobs of ' || CAST(:owner_id AS text), 0))")
_admit = text(f"""
    UPDATE jobs SET admitted = TRUE, published_at = now(), publishes = 1, run_at = now(),
        republish_at = now() + make_interval(secs => :republish)
    WHERE id IN (
        SELECT id FROM jobs
        WHERE owner_id = :owner_id AND status = 'queued' AND NOT admitted AND cancel_requested_at IS NULL
        ORDER BY priority, id LIMIT GREATEST(:limit - {RUNNING}, 0) FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, kind, step, priority""")
_free = text(f"SELECT :limit - {RUNNING}")
_waiting = text("""
    SELECT DISTINCT owner_id FROM jobs WHERE status = 'queued' AND NOT admitted LIMIT 1000""")


def lock(connection: Connection, owner_id: UUID) -> None:
    """Let nobody else count or admit this owner's jobs until the end of the transaction."""
    connection.execute(_lock, {"owner_id": owner_id})


def admit(connection: Connection, owner_id: UUID, *, limit: int, batch: int, republish: float) -> list[Due]:
    """Admit what the limit has room for, by priority and age; to be published after the commit. Needs a transaction.

    Nothing happens while fewer than ``batch`` places are free: filling up in batches costs a long backlog one
    transaction for many jobs instead of one for each.
    """
    lock(connection, owner_id)
    values = {"owner_id": owner_id, "limit": limit}
    if connection.execute(_free, values).scalar_one() < batch:
        return []
    return [due_of(row) for row in connection.execute(_admit, {**values, "republish": republish})]


def owners_waiting(connection: Connection) -> list[UUID]:
    """Owners with jobs that are not admitted."""
    return list(connection.execute(_waiting).scalars())

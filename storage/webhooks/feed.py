"""New events of jobs become deliveries, each once for each endpoint that asked for it, whatever dies and whenever.

How far the events have been read is a snapshot (see ``storage.feeds``), moved on by the statement that inserts the
deliveries: both are committed or neither is. One reader works at a time; the lock is taken by a statement of its own,
because the snapshot of the next one must be newer than whatever the reader before has committed.
"""

from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

BATCH = 5000  # events of one statement; each may go to several endpoints

_log = structlog.get_logger()
_hold = text("SELECT FROM webhook_feed FOR UPDATE SKIP LOCKED")
# A database that was restored from a dump into another cluster counts its transactions anew.
_begin_anew = text("""
    UPDATE webhook_feed SET seen = CAST(pg_current_snapshot() AS text), until = NULL
    WHERE pg_snapshot_xmax(CAST(seen AS pg_snapshot)) > pg_snapshot_xmax(pg_current_snapshot())
    RETURNING seen""")
_since_now = text("UPDATE webhooks SET since = CAST(pg_current_snapshot() AS text)")

# A UUIDv7 (RFC 9562, 5.7) made of a random one: PostgreSQL has a function for it from 18 on.
_UUID7 = """CAST(encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing substring(int8send(
    floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')
    AS uuid)"""
_MADE = f"""
    INSERT INTO webhook_deliveries (id, webhook_id, type, at, data, job_id, seq, next_attempt_at)
    SELECT {_UUID7}, webhook_id, 'job.' || type, at, jsonb_strip_nulls(jsonb_build_object(
        'job_id', job_id, 'status', data -> 'status', 'kind', kind, 'error', data -> 'error')), job_id, seq, now()
    FROM wanted ON CONFLICT DO NOTHING"""
# OFFSET 0: the index of events is asked for each owner, which costs as much as there are owners with endpoints; joined
# freely, the planner may read all of it, which costs as much as there are events.
_collect = text(f"""
    WITH span AS (
        SELECT CAST(seen AS pg_snapshot) AS seen, txid, job_id, seq,
               COALESCE(CAST(until AS pg_snapshot), pg_current_snapshot()) AS until, until IS NOT NULL AS begun
        FROM webhook_feed),
    fresh AS (
        SELECT found.*, CAST(CAST(found.txid AS text) AS bigint) AS number
        FROM span CROSS JOIN (SELECT DISTINCT owner_id FROM webhooks WHERE enabled) AS owners
        CROSS JOIN LATERAL (
            SELECT job_id, seq, type, at, data, owner_id, txid FROM job_events
            WHERE job_events.owner_id = owners.owner_id
                AND job_events.txid >= GREATEST(pg_snapshot_xmin(span.seen), CAST(CAST(span.txid AS text) AS xid8))
            OFFSET 0) AS found
        WHERE NOT pg_visible_in_snapshot(found.txid, span.seen) AND pg_visible_in_snapshot(found.txid, span.until)),
    batch AS (
        SELECT fresh.* FROM fresh, span
        WHERE (fresh.number, fresh.job_id, fresh.seq) > (span.txid, span.job_id, span.seq)
        ORDER BY fresh.number, fresh.job_id, fresh.seq LIMIT :limit),
    wanted AS (
        SELECT webhooks.id AS webhook_id, batch.*, jobs.kind
        FROM batch JOIN webhooks ON webhooks.owner_id = batch.owner_id AND webhooks.enabled
            AND 'job.' || batch.type = ANY(webhooks.event_types)
            AND NOT pg_visible_in_snapshot(batch.txid, CAST(webhooks.since AS pg_snapshot))
        JOIN jobs ON jobs.id = batch.job_id
        FOR KEY SHARE OF webhooks),
    made AS ({_MADE} RETURNING 1),
    last AS (SELECT number, job_id, seq FROM batch ORDER BY number DESC, job_id DESC, seq DESC LIMIT 1),
    place AS (
        SELECT span.seen, span.until, span.begun, (SELECT count(*) FROM batch) = :limit AS more,
               last.number, last.job_id, last.seq, (SELECT count(*) FROM made) AS made
        FROM span LEFT JOIN last ON TRUE)
    UPDATE webhook_feed SET
        seen = CAST(CASE WHEN place.more THEN place.seen ELSE place.until END AS text),
        until = CASE WHEN place.more THEN CAST(place.until AS text) END,
        txid = CASE WHEN place.more THEN place.number ELSE 0 END,
        job_id = CASE WHEN place.more THEN place.job_id ELSE CAST('{"0" * 32}' AS uuid) END,
        seq = CASE WHEN place.more THEN place.seq ELSE 0 END
    FROM place RETURNING place.more OR place.begun AS more, place.made""")

# What of one job has not been read, beside whoever is reading: a delivery is unique for its event and endpoint.
_collect_last = text(f"""
    WITH wanted AS (
        SELECT webhooks.id AS webhook_id, job_events.*, jobs.kind
        FROM jobs JOIN webhooks ON webhooks.owner_id = jobs.owner_id AND webhooks.enabled
        JOIN job_events ON job_events.job_id = jobs.id AND 'job.' || job_events.type = ANY(webhooks.event_types)
            AND NOT pg_visible_in_snapshot(job_events.txid, CAST(webhooks.since AS pg_snapshot))
            AND NOT pg_visible_in_snapshot(
                job_events.txid, (SELECT CAST(seen AS pg_snapshot) FROM webhook_feed LIMIT 1))
        WHERE jobs.id = :job_id
        ORDER BY seq, webhooks.id
        FOR KEY SHARE OF webhooks)
    {_MADE}""")


class Collected(NamedTuple):
    deliveries: int
    more: bool  # what was begun earlier is done up to where it was begun; what has come since is more


def hold(connection: Connection) -> bool:
    """Hold what is read and dispatched until the end of the transaction; False when somebody else does."""
    if connection.execute(_hold).first() is None:
        return False
    if connection.execute(_begin_anew).first() is not None:
        connection.execute(_since_now)
        _log.warning("webhooks_begin_anew", reason="the database counts its transactions anew: it was restored")
    return True


def collect_last(connection: Connection, job_id: UUID) -> None:
    """Turn what has not been read of a job's events into deliveries, in the transaction that deletes the job."""
    connection.execute(_collect_last, {"job_id": job_id})


def collect(connection: Connection, limit: int = BATCH) -> Collected:
    """Turn at most ``limit`` new events into deliveries. Only after ``hold``, in its transaction."""
    row = connection.execute(_collect, {"limit": limit}).one()
    return Collected(deliveries=row.made, more=row.more)

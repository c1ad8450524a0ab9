"""Rows and objects compared: what no row names, what is named and may be gone, and a fence between the two.

An upload writes its object first and its row afterwards, so an object without a row may be about to get one. Its age
makes that unlikely. What makes it impossible is the table ``leftovers``: a key stands there, committed, before its
object is deleted, and ``storage.files.insert`` (``storage.recordings.keeping.keep``) refuses such a key. Both sides
are in order because the sweep locks the table of files for the moment it looks: a row that is about to be committed is
waited for and seen, and one that comes later sees the fence.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Column, Connection, DateTime, Table, Text, text

from storage.database import metadata

leftovers = Table(
    "leftovers",
    metadata,
    Column("key", Text, primary_key=True),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=text("now()"), index=True),
)

# The row of a resumable upload is there before anything of it is in the store. A tail is named within the lease of the
# request that wrote it, or never: it cannot be as old as a leftover by then. Once it is complete, the object is its
# file's, and goes with the file.
_unnamed = text("""
    SELECT key FROM unnest(CAST(:keys AS text[])) AS key
    WHERE NOT EXISTS (SELECT FROM files WHERE object_key = key)
      AND NOT EXISTS (SELECT FROM recordings WHERE object_key = key)
      AND NOT EXISTS (SELECT FROM uploads WHERE object_key = key AND (partial OR state <> 'complete'))
      AND NOT EXISTS (SELECT FROM uploads WHERE tail_key = key)""")
# Whoever writes files waits behind this lock: only so long as nobody notices
_patience = text("SET LOCAL lock_timeout = '300ms'")
_lock = text("LOCK TABLE files, recordings IN SHARE MODE")
_fence = text(f"""
    INSERT INTO leftovers AS known (key) {_unnamed.text}
    ON CONFLICT (key) DO UPDATE SET found_at = known.found_at RETURNING key""")
_jobless = text("""
    SELECT id FROM unnest(CAST(:ids AS uuid[])) AS id WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.id = id.id)""")
_fewer = {
    table: text(f"SELECT count(*) < :than FROM (SELECT FROM {table} LIMIT :than) AS few")
    for table in ("files", "recordings")
}
# Keys are never used twice; a process that slept for longer than this between its object and its row is not expected.
_forget = text("""
    DELETE FROM leftovers WHERE key IN (
        SELECT key FROM leftovers WHERE found_at < now() - interval '30 days' ORDER BY found_at LIMIT :limit)""")
_files = text("SELECT id, object_key AS key FROM files WHERE id > :after ORDER BY id LIMIT :limit")
_results = text("""
    SELECT id, result_key AS key FROM jobs
    WHERE id > :after AND result_key IS NOT NULL AND status = 'succeeded' ORDER BY id LIMIT :limit""")
_recordings = text("SELECT id, object_key AS key FROM recordings WHERE id > :after ORDER BY id LIMIT :limit")
_still = text("""
    SELECT key FROM unnest(CAST(:keys AS text[])) AS key WHERE EXISTS (SELECT FROM files WHERE object_key = key)
    UNION ALL
    SELECT object_key FROM recordings WHERE id = ANY(:ids) AND object_key = ANY(:keys)
    UNION ALL
    SELECT result_key FROM jobs WHERE id = ANY(:ids) AND result_key = ANY(:keys)""")


def unnamed(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no file, recording or upload has now. Not enough to delete anything by: see ``fence``."""
    return list(connection.execute(_unnamed, {"keys": list(keys)}).scalars())


def fence(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that no file and no recording has or can ever have once the transaction is committed.

    Needs a transaction.

    Raises:
        DatabaseUnavailable (by the transaction): the tables could not be locked within 0.3 s; nothing was done.
    """
    connection.execute(_patience)
    connection.execute(_lock)
    return list(connection.execute(_fence, {"keys": list(keys)}).scalars())


def without_job(connection: Connection, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that no job has. None ever will: a job is committed before anybody learns its id."""
    return set(connection.execute(_jobless, {"ids": list(ids)}).scalars())


def fewer_than(connection: Connection, table: str, number: int) -> bool:
    """Whether the database knows fewer `files` (or `recordings`) than that; looks at no more."""
    return bool(connection.execute(_fewer[table], {"than": number}).scalar_one())


def forget(connection: Connection, limit: int) -> int:
    """Remove fences a month old, at most ``limit``; how many it were."""
    return connection.execute(_forget, {"limit": limit}).rowcount


# ---------------------------------------------------------------- what is named


class Named(NamedTuple):
    id: UUID  # of the file, of the recording, or of the job whose result it is
    key: str


Page = Callable[[Connection, UUID, int], list[Named]]


def files(connection: Connection, after: UUID, limit: int) -> list[Named]:
    """The objects of at most ``limit`` files whose ids follow ``after``, in their order."""
    return [Named(row.id, row.key) for row in connection.execute(_files, {"after": after, "limit": limit})]


def recordings(connection: Connection, after: UUID, limit: int) -> list[Named]:
    """The same of recordings."""
    return [Named(row.id, row.key) for row in connection.execute(_recordings, {"after": after, "limit": limit})]


def results(connection: Connection, after: UUID, limit: int) -> list[Named]:
    """The same of the results of jobs that have succeeded."""
    return [Named(row.id, row.key) for row in connection.execute(_results, {"after": after, "limit": limit})]


def still_named(connection: Connection, named: Sequence[Named]) -> set[str]:
    """The keys among these that are named now: an object whose row has gone meanwhile is not missed."""
    values = {"keys": [one.key for one in named], "ids": [one.id for one in named]}
    return set(connection.execute(_still, values).scalars())

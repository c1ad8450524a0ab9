"""What one owner's files may take in all, decided in Postgres: uploads that end together cannot pass it together.

Every file counts with its whole size, also where equal bytes are stored once; a resumable upload and one straight to
the storage count from their beginning, since their bytes lie there: with their whole length, and where it is not known
yet with what has come and what is just coming. A partial upload is no file, but its bytes count until a final upload is
made of it.
"""

from uuid import UUID

from sqlalchemy import Connection, text

from domain.errors.uploads import StorageQuotaExceeded
from storage.configuration import settings

_NONE = UUID(int=0)
_lock = text("SELECT pg_advisory_xact_lock(hashtextextended('files of ' || CAST(:owner_id AS text), 0))")
_taken = text("""
    SELECT count(*) FILTER (WHERE file) AS files, COALESCE(sum(size), 0)::bigint AS bytes FROM (
        SELECT size, true AS file FROM files WHERE owner_id = :owner_id
        UNION ALL
        SELECT size, true FROM direct_uploads WHERE owner_id = :owner_id AND expires_at > now() AND id <> :but
        UNION ALL
        SELECT COALESCE(length, GREATEST(received, CASE WHEN lease_until > clock_timestamp() THEN reserved END)),
            NOT partial FROM uploads
        WHERE owner_id = :owner_id AND id <> :but AND (partial OR state <> 'complete')
          AND (expires_at > now() OR state = 'finishing')
          AND NOT (partial AND EXISTS (
              SELECT FROM uploads AS final WHERE final.owner_id = :owner_id AND uploads.id = ANY(final.sources)))
    ) AS held""")


def limited() -> bool:
    """Whether there is a limit at all."""
    return bool(settings().owner_max_bytes or settings().owner_max_files)


def lock(connection: Connection, owner_id: UUID) -> None:
    """Let nobody else add to this owner's files until the end of the transaction."""
    connection.execute(_lock, {"owner_id": owner_id})


def claim(connection: Connection, owner_id: UUID, size: int, but: UUID, *, files: int = 1) -> None:
    """Make sure of ``size`` bytes for one more file (or none), to be written in the caller's transaction.

    ``but`` is the file's own id, which an upload has had since its beginning.

    Raises:
        StorageQuotaExceeded
    """
    if limited():
        lock(connection, owner_id)
        check(connection, owner_id, size, but, files=files)


def check(connection: Connection, owner_id: UUID, size: int, but: UUID = _NONE, *, files: int = 1) -> None:
    """The same as far as one can see now, for a refusal before the first byte. Raises StorageQuotaExceeded."""
    config = settings()
    if not limited():
        return
    taken = connection.execute(_taken, {"owner_id": owner_id, "but": but}).one()
    for unit, limit, used, asked in (
        ("files", config.owner_max_files, taken.files, files),
        ("bytes", config.owner_max_bytes, taken.bytes, size),
    ):
        if limit and used + asked > limit:
            raise StorageQuotaExceeded(unit=unit, limit=limit, used=used, asked=asked)

"""The listing of a job's archive, as it was inspected."""

from uuid import UUID

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from domain.archives import Listing, Member, Summary
from domain.errors.archives import MemberNotLocated
from storage.copying import copy_rows
from storage.database import metadata

archives = Table(
    "archives",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("summary", JSONB, nullable=False),
)

archive_entries = Table(
    "archive_entries",
    metadata,
    Column("job_id", Uuid, ForeignKey("archives.job_id", ondelete="CASCADE"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("raw_name", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("compressed_size", BigInteger, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("modified_at", DateTime(timezone=False)),  # archives keep the writer's local time and no zone
    Column("is_folder", Boolean, nullable=False),
    Column("content_type", Text),
    Column("header_offset", BigInteger),  # null: inspected before revision 0007
)
# `index` is what the archive calls it and a word of SQL: quoted
_COLUMNS = (
    "job_id",
    '"index"',
    "name",
    "raw_name",
    "size",
    "compressed_size",
    "crc32",
    "method",
    "modified_at",
    "is_folder",
    "content_type",
    "header_offset",
)

_summary = text("SELECT summary FROM archives WHERE job_id = :job_id")
_page = text("""
    SELECT "index", name, size, compressed_size, crc32, method, modified_at, is_folder, content_type
    FROM archive_entries
    WHERE job_id = :job_id AND "index" > :after
      AND (CAST(:name AS text) IS NULL OR name ILIKE '%' || :name || '%')
      AND (CAST(:content_type AS text) IS NULL OR content_type ILIKE :content_type || '%')
    ORDER BY "index" LIMIT :limit""")
_member = text("""
    SELECT name, raw_name, size, compressed_size, crc32, method, is_folder, content_type, header_offset
    FROM archive_entries WHERE job_id = :job_id AND "index" = :index""")


def store(connection: Connection, job_id: UUID, listing: Listing) -> None:
    """Write summary and entries; a second time changes nothing, so a repeated step is harmless."""
    summary = insert(archives).values(job_id=job_id, summary=msgspec.to_builtins(listing.summary))
    if connection.execute(summary.on_conflict_do_nothing()).rowcount:
        copy_rows(
            connection,
            archive_entries,
            _COLUMNS,
            (
                (
                    job_id,
                    entry.index,
                    entry.name,
                    entry.raw_name,
                    entry.size,
                    entry.compressed_size,
                    entry.crc32,
                    entry.method,
                    entry.modified_at,
                    entry.is_folder,
                    entry.content_type,
                    entry.header_offset,
                )
                for entry in listing.entries
            ),
        )


def summary(connection: Connection, job_id: UUID) -> Summary | None:
    """None while the archive has not been inspected, and for jobs without one."""
    found = connection.execute(_summary, {"job_id": job_id}).scalar_one_or_none()
    return None if found is None else msgspec.convert(found, Summary)


def page(
    connection: Connection, job_id: UUID, *, after: int, limit: int, name: str | None, content_type: str | None
) -> list[dict[str, object]]:
    """Entries in the archive's order after index ``after``, filtered by part of the name and start of the type."""
    filters = {"name": _literal(name), "content_type": _literal(content_type)}
    values = {"job_id": job_id, "after": after, "limit": limit, **filters}
    return [dict(row._mapping) for row in connection.execute(_page, values)]


def _literal(text: str | None) -> str | None:
    """For LIKE, where nothing in it stands for something else."""
    return None if text is None else text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def member(connection: Connection, job_id: UUID, index: int) -> Member | None:
    """What is needed to unpack one member.

    Raises:
        MemberNotLocated: the archive was inspected by a version that did not keep where its members lie.
    """
    row = connection.execute(_member, {"job_id": job_id, "index": index}).one_or_none()
    if row is None:
        return None
    if row.header_offset is None:
        raise MemberNotLocated
    return Member(**row._mapping)

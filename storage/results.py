"""The parsed results of a job: what the file was like as a whole, and its rows for paged reading."""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import Column, Connection, DateTime, ForeignKey, Integer, Table, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB, insert

from domain.results import CellWarning, Parsed, Row, Summary
from storage.copying import copy_rows
from storage.database import metadata

results = Table(
    "results",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("parsed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("columns", JSONB, nullable=False),
    Column("summary", JSONB, nullable=False),
    Column("warnings", JSONB, nullable=False),
    Column("warnings_total", Integer, nullable=False),
)

result_rows = Table(
    "result_rows",
    metadata,
    Column("job_id", Uuid, ForeignKey("results.job_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("data", JSONB, nullable=False),
)

_head = text("SELECT parsed_at, columns, summary, warnings, warnings_total FROM results WHERE job_id = :job_id")
_page = text("""
    SELECT number, data FROM result_rows
    WHERE job_id = :job_id AND number > :after ORDER BY number LIMIT :limit""")
_all = text("SELECT data FROM result_rows WHERE job_id = :job_id ORDER BY number")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about parsed results but the rows."""

    parsed_at: datetime
    columns: list[str]
    summary: Summary
    warnings: list[CellWarning]
    warnings_total: int


def store(connection: Connection, job_id: UUID, parsed: Parsed) -> None:
    """Write the results and their rows (by COPY); a second time changes nothing, so a repeated step is harmless."""
    head = insert(results).values(
        job_id=job_id,
        columns=parsed.columns,
        summary=msgspec.to_builtins(parsed.summary),
        warnings=msgspec.to_builtins(parsed.warnings),
        warnings_total=parsed.warnings_total,
    )
    if connection.execute(head.on_conflict_do_nothing()).rowcount:
        encode = msgspec.json.Encoder().encode
        rows = ((job_id, number, encode(row).decode()) for number, row in enumerate(parsed.rows, 1))
        copy_rows(connection, result_rows, ("job_id", "number", "data"), rows)


def head(connection: Connection, job_id: UUID) -> Head | None:
    """None while the job's results have not been parsed."""
    row = connection.execute(_head, {"job_id": job_id}).one_or_none()
    return None if row is None else msgspec.convert(dict(row._mapping), Head)


def page(connection: Connection, job_id: UUID, *, after: int, limit: int) -> list[tuple[int, Row]]:
    """(number, row) of at most ``limit`` rows that follow number ``after``; numbers start at 1."""
    rows = connection.execute(_page, {"job_id": job_id, "after": after, "limit": limit})
    return [(row.number, row.data) for row in rows]


def every_row(connection: Connection, job_id: UUID) -> Iterator[Row]:
    """All rows in order, fetched in portions."""
    for row in connection.execution_options(yield_per=2000).execute(_all, {"job_id": job_id}):
        yield row.data

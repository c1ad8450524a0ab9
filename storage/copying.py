"""Many rows at once: PostgreSQL's COPY, within the transaction of a SQLAlchemy connection."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table


def copy_rows(connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write ``rows``, whose values are in the order of ``columns``, with COPY ... FROM STDIN."""
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  # for the type checker: the connection is open
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)

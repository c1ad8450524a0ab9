"""How far the bounded runs of housekeeping have come: each goes on where the one before it left off."""

from typing import NamedTuple

import msgspec
from sqlalchemy import BigInteger, Column, Connection, DateTime, Table, Text, text

from storage.database import metadata

housekeeping = Table(
    "housekeeping",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default=text("0")),  # goes up with each piece that is noted
    Column("after", Text, nullable=False, server_default=text("''")),  # where the next run begins; '' is the beginning
    Column("found", BigInteger, nullable=False, server_default=text("0")),  # in the pass under way
    Column("found_before", BigInteger, nullable=False, server_default=text("0")),  # in the last whole pass
    Column("total", BigInteger, nullable=False, server_default=text("0")),  # ever
    Column("held", BigInteger, nullable=False, server_default=text("0")),  # found and left alone by the last run
    Column("passed_at", DateTime(timezone=True)),  # the end of the last whole pass
)

_make = text("INSERT INTO housekeeping (name) VALUES (:name) ON CONFLICT DO NOTHING")
_place = text("SELECT after, version FROM housekeeping WHERE name = :name")
_hold = text("SELECT after, version FROM housekeeping WHERE name = :name FOR UPDATE SKIP LOCKED")
_advance = text("""
    UPDATE housekeeping SET version = version + 1, after = :after, total = total + :found, held = :held,
        found = CASE WHEN :after = '' THEN 0 ELSE found + :found END,
        found_before = CASE WHEN :after = '' THEN found + :found ELSE found_before END,
        passed_at = CASE WHEN :after = '' THEN now() ELSE passed_at END
    WHERE name = :name AND version = :version""")


class Place(NamedTuple):
    """Where a pass goes on (the empty string is its beginning), and the version of what is known of it."""

    after: str
    version: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What one bounded piece of a pass came to; ``after`` is empty when it was the last piece."""

    after: str
    found: int
    held: int = 0


def place(connection: Connection, name: str) -> Place:
    """Where the pass ``name`` goes on."""
    connection.execute(_make, {"name": name})
    return Place(*connection.execute(_place, {"name": name}).one())


def hold(connection: Connection, name: str) -> Place | None:
    """``place``, with the row held until the end of the transaction; None when somebody else holds it."""
    connection.execute(_make, {"name": name})
    row = connection.execute(_hold, {"name": name}).one_or_none()
    return Place(*row) if row else None


def advance(connection: Connection, name: str, version: int, progress: Progress) -> bool:
    """Note what was done from the place of that version; False, and nothing noted, when another run was quicker."""
    values = {"name": name, "version": version, **msgspec.structs.asdict(progress)}
    return connection.execute(_advance, values).rowcount == 1

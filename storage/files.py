"""The files table and every statement on it."""

from typing import Any, NamedTuple
from uuid import UUID

from psycopg import errors as pg
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    Index,
    Table,
    Text,
    Uuid,
    exc,
    exists,
    literal,
    select,
    text,
)
from sqlalchemy import delete as delete_from
from sqlalchemy import insert as insert_into

from domain.errors import FileInUse, NotFound, StorageUnavailable
from domain.files import File, FilePage, StoredObject, stored_name
from storage.database import autocommit, metadata
from storage.reconciliation import leftovers

files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="RESTRICT"), nullable=False),
    Column("filename", Text, nullable=False, unique=True),
    Column("object_key", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    CheckConstraint("size >= 0", name="size"),
    CheckConstraint("kind IN ('single', 'zip')", name="kind"),
)
# a page of somebody's files, newest first: UUIDv7 sorts by the time it was made
Index("ix_files_owner_id_id", files.c.owner_id, files.c.id.desc())

_seen = [files.c[name] for name in ("id", "filename", "name", "size", "content_type", "sha256", "kind", "created_at")]


class Located(NamedTuple):
    file: File
    key: str  # in the object storage


def insert(connection: Connection, owner_id: UUID, stored: StoredObject) -> File:
    """The row of an object that is complete in the storage, as a part of the caller's transaction.

    Raises:
        StorageUnavailable: so much time has passed since that the object counts as a leftover and may be gone.
    """
    values = {
        "id": stored.id,
        "owner_id": owner_id,
        "filename": stored_name(stored.id, stored.name),
        "object_key": stored.key,
        "name": stored.name,
        "size": stored.size,
        "content_type": stored.content_type,
        "sha256": stored.sha256,
        "kind": stored.kind,
    }
    columns = [files.c[name] for name in values]
    row = select(*(literal(value, column.type) for value, column in zip(values.values(), columns, strict=True)))
    statement = insert_into(files).from_select(columns, row.where(~exists().where(leftovers.c.key == stored.key)))
    inserted = connection.execute(statement.returning(*_seen)).one_or_none()
    if inserted is None:
        raise StorageUnavailable(retry_after=1, key=stored.key)
    return _file(inserted)


def create(owner_id: UUID, stored: StoredObject) -> File:
    """``insert`` as a transaction by itself."""
    with autocommit() as connection:
        return insert(connection, owner_id, stored)


def get(filename: str, owner_id: UUID | None) -> File:
    """The file of that owner; None for ``owner_id`` stands for an administrator, who sees all. Raises NotFound."""
    return locate(filename, owner_id).file


def locate(filename: str, owner_id: UUID | None) -> Located:
    """``get`` with the key of its object."""
    with autocommit() as connection:
        row = connection.execute(select(*_seen, files.c.object_key).where(*_named(filename, owner_id))).one_or_none()
    if row is None:
        raise NotFound(what="file")
    return Located(_file(row), row.object_key)


def by_id(connection: Connection, file_id: UUID) -> File | None:
    row = connection.execute(select(*_seen).where(files.c.id == file_id)).one_or_none()
    return None if row is None else _file(row)


def page(owner_id: UUID, limit: int, after: UUID | None = None, name: str | None = None) -> FilePage:
    """At most ``limit`` files older than ``after``, newest first; ``name`` is a part of their names, in any case."""
    statement = select(*_seen).where(files.c.owner_id == owner_id).order_by(files.c.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(files.c.id < after)
    if name:
        statement = statement.where(files.c.name.icontains(_storable(name), autoescape=True))
    with autocommit() as connection:
        items = [_file(row) for row in connection.execute(statement)]
    return FilePage(items=items[:limit], next=items[limit - 1].id if len(items) > limit else None)


def delete(filename: str, owner_id: UUID | None) -> str:
    """Delete the row; the answer is the key of its object, to be deleted now that nothing names it.

    Raises:
        NotFound
        FileInUse: a job names it.
    """
    statement = delete_from(files).where(*_named(filename, owner_id)).returning(files.c.object_key)
    try:
        with autocommit() as connection:
            key = connection.execute(statement).scalar_one_or_none()
    except exc.IntegrityError as error:
        if isinstance(error.orig, pg.ForeignKeyViolation | pg.RestrictViolation):
            raise FileInUse from error
        raise
    if key is None:
        raise NotFound(what="file")
    return str(key)


def _named(filename: str, owner_id: UUID | None) -> list[Any]:
    mine = [] if owner_id is None else [files.c.owner_id == owner_id]
    return [files.c.filename == _storable(filename), *mine]


def _storable(given: str) -> str:
    return given.replace("\0", "?")  # Postgres text knows no NUL; what has one names nothing


def _file(row: Any) -> File:
    return File(
        id=row.id,
        filename=row.filename,
        name=row.name,
        size=row.size,
        content_type=row.content_type,
        sha256=row.sha256,
        type=row.kind,
        created_at=row.created_at,
    )

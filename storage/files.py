"""The files table and every statement on it."""

from collections.abc import Sequence
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
    Select,
    Table,
    Text,
    Uuid,
    exc,
    exists,
    literal,
    select,
    text,
)
from sqlalchemy import insert as insert_into

from domain.errors.neighbours import StorageUnavailable
from domain.errors.requests import NotFound
from domain.errors.uploads import FileInUse
from domain.files import File, FilePage, StoredObject, stored_name
from storage import quotas
from storage.database import autocommit, metadata, transact, transaction
from storage.reconciliation import leftovers, unnamed

files = Table(
    "files",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="RESTRICT"), nullable=False),
    Column("filename", Text, nullable=False, unique=True),
    Column("object_key", Text, nullable=False, index=True),  # of several files where equal bytes are stored once
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("local_headers", Text),  # of an archive that was seen as it came: see domain.archives.walking
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    CheckConstraint("size >= 0", name="size"),
    CheckConstraint("kind IN ('single', 'zip')", name="kind"),
)
# a page of somebody's files, newest first: UUIDv7 sorts by the time it was made
Index("ix_files_owner_id_id", files.c.owner_id, files.c.id.desc())
# equal bytes of an owner, and what all of an owner's files take, without reading the table
Index("ix_files_owner_id_sha256", files.c.owner_id, files.c.sha256, postgresql_include=["size"])

_seen = [files.c[name] for name in ("id", "filename", "name", "size", "content_type", "sha256", "kind", "created_at")]


class Located(NamedTuple):
    file: File
    key: str  # in the object storage


def insert(connection: Connection, owner_id: UUID, stored: StoredObject) -> File:
    """The row of an object that is complete in the storage, as a part of the caller's transaction.

    It names the object's twin instead where the object has one that is still named; then nothing names the object.

    Raises:
        StorageQuotaExceeded
        StorageUnavailable: so much time has passed since that the object counts as a leftover and may be gone.
    """
    quotas.claim(connection, owner_id, stored.size, stored.id)
    values = {
        "id": stored.id,
        "owner_id": owner_id,
        "filename": stored_name(stored.id, stored.name),
        "object_key": _twin(connection, owner_id, stored) or stored.key,
        "name": stored.name,
        "size": stored.size,
        "content_type": stored.content_type,
        "sha256": stored.sha256,
        "kind": stored.kind,
        "local_headers": stored.local_headers,
    }
    columns = [files.c[name] for name in values]
    row = select(*(literal(value, column.type) for value, column in zip(values.values(), columns, strict=True)))
    fenced = exists().where(leftovers.c.key == values["object_key"])
    inserted = connection.execute(insert_into(files).from_select(columns, row.where(~fenced)).returning(*_seen))
    made = inserted.one_or_none()
    if made is None:
        raise StorageUnavailable(retry_after=1, key=stored.key)
    return _file(made)


def create(owner_id: UUID, stored: StoredObject) -> File:
    """``insert`` as a transaction by itself."""
    with transaction() as connection:
        return insert(connection, owner_id, stored)


def twin(owner_id: UUID, stored: StoredObject) -> str | None:
    """The key of an object of that owner with the same bytes, if there is one."""
    with autocommit() as connection:
        return connection.execute(_equal(owner_id, stored)).scalars().first()


def _twin(connection: Connection, owner_id: UUID, stored: StoredObject) -> str | None:
    """The twin, held: who deletes the last file that names it waits, and then sees ours (``remove``)."""
    if stored.twin is None:
        return None
    statement = _equal(owner_id, stored).where(files.c.object_key == stored.twin).with_for_update(read=True)
    return connection.execute(statement).scalars().first()


def _equal(owner_id: UUID, stored: StoredObject) -> Select[str]:
    same = (files.c.owner_id == owner_id, files.c.sha256 == stored.sha256, files.c.size == stored.size)
    return select(files.c.object_key).where(*same).order_by(files.c.id).limit(1)


def get(filename: str, owner_id: UUID | None) -> File:
    """The file of that owner; None for ``owner_id`` stands for an administrator, who sees all. Raises NotFound."""
    return locate(filename, owner_id).file


def by_id(connection: Connection, file_id: UUID, owner_id: UUID) -> File | None:
    """The owner's file of that id."""
    row = connection.execute(select(*_seen).where(files.c.id == file_id, files.c.owner_id == owner_id)).one_or_none()
    return None if row is None else _file(row)


def locate(filename: str, owner_id: UUID | None) -> Located:
    """``get`` with the key of its object."""
    with autocommit() as connection:
        row = connection.execute(select(*_seen, files.c.object_key).where(*_named(filename, owner_id))).one_or_none()
    if row is None:
        raise NotFound(what="file")
    return Located(_file(row), row.object_key)


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


def delete(filename: str, owner_id: UUID | None) -> list[str]:
    """Delete the row; the answer is the key of its object, to be deleted now, unless another file names it.

    Raises:
        NotFound
        FileInUse: a job names it.
    """

    def deleting(connection: Connection) -> list[str]:
        found = connection.execute(select(files.c.id).where(*_named(filename, owner_id))).scalar_one_or_none()
        if found is None:
            raise NotFound(what="file")
        # one that no job works on: the foreign key's own check would wait for a job that is just being deleted, while
        # that waits for this file
        try:
            removed = remove(connection, [found], unused=True)
        except exc.IntegrityError as error:
            if isinstance(
                error.orig, pg.ForeignKeyViolation | pg.RestrictViolation
            ):  # something else than a job names it
                raise FileInUse from error
            raise
        if not removed.number:
            raise NotFound(what="file") if _is_gone(connection, found) else FileInUse
        return removed.keys

    return transact(deleting)


def _is_gone(connection: Connection, file_id: UUID) -> bool:
    return connection.execute(select(files.c.id).where(files.c.id == file_id)).first() is None


class Removed(NamedTuple):
    number: int  # of rows
    keys: list[str]  # of objects that no row names any more, to be deleted after the commit


# All that name the same objects, in order of id: of two who delete files with one object, the second sees what the
# first has done, and the last of them gets the key. No job can be made of these files until the end of the transaction.
_hold = text("""
    SELECT FROM files WHERE object_key IN (SELECT object_key FROM files WHERE id = ANY(:ids)) ORDER BY id FOR UPDATE""")
_remove = text("DELETE FROM files WHERE id = ANY(:ids) RETURNING object_key")
_remove_unused = text("""
    DELETE FROM files WHERE id = ANY(:ids) AND NOT EXISTS (SELECT FROM jobs WHERE input_file_id = files.id)
    RETURNING object_key""")


def remove(connection: Connection, ids: Sequence[UUID], *, unused: bool = False) -> Removed:
    """Delete these files, with ``unused`` only those that no job works on. Needs a transaction.

    Each statement sees what was committed before it, so the order matters: hold, delete, then look who is left.
    """
    if not ids:
        return Removed(0, [])
    connection.execute(_hold, {"ids": list(ids)})
    keys = list(connection.execute(_remove_unused if unused else _remove, {"ids": list(ids)}).scalars())
    return Removed(len(keys), unnamed(connection, list(dict.fromkeys(keys))) if keys else [])


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

"""Uploads that clients send straight to the object storage: what was announced, until it is complete or has expired.

The bytes go to an S3 multipart upload, also where it is one part: once it is completed or aborted its presigned URLs
are dead, so what was verified cannot be changed any more. A row here means that no file has the object yet.
"""

from datetime import datetime
from uuid import UUID

import msgspec
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
    text,
)

from domain.errors.uploads import TooManyUploads
from storage import discarding, objects, quotas
from storage.configuration import settings
from storage.database import metadata

direct_uploads = Table(
    "direct_uploads",
    metadata,
    Column("id", Uuid, primary_key=True),  # becomes the file's
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("upload_id", Text, nullable=False),  # S3's name of the multipart upload
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("part_size", BigInteger, nullable=False),
    Column("content_type", Text),  # as the client says; the content is asked first
    Column("sha256", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("size >= 0", name="size"),
    CheckConstraint("part_size > 0", name="part_size"),
)
Index("ix_direct_uploads_owner_id", direct_uploads.c.owner_id)
Index("ix_direct_uploads_expires_at", direct_uploads.c.expires_at)

_open = text("SELECT count(*) FROM direct_uploads WHERE owner_id = :owner_id AND expires_at > now()")
_insert = text("""
    INSERT INTO direct_uploads (id, owner_id, upload_id, name, size, part_size, content_type, sha256, expires_at)
    VALUES (:id, :owner_id, :upload_id, :name, :size, :part_size, :content_type, :sha256,
            now() + make_interval(secs => :seconds))
    RETURNING expires_at""")
_seen = "id, upload_id, name, size, part_size, content_type, sha256, expires_at"
_find = text(f"""
    SELECT {_seen} FROM direct_uploads WHERE id = :id AND owner_id = :owner_id AND expires_at > now()""")
_hold = text("""
    UPDATE direct_uploads SET expires_at = GREATEST(expires_at, now() + make_interval(secs => :seconds))
    WHERE id = :id AND owner_id = :owner_id AND expires_at > now()""")
_remove = text(f"DELETE FROM direct_uploads WHERE id = :id AND owner_id = :owner_id RETURNING {_seen}")
_remove_expired = text(f"""
    DELETE FROM direct_uploads WHERE id IN (
        SELECT id FROM direct_uploads WHERE expires_at <= now() ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING {_seen}""")


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """An upload under way."""

    id: UUID
    upload_id: str
    name: str
    size: int  # bytes
    part_size: int  # of every part but the last
    content_type: str | None
    sha256: str | None
    expires_at: datetime

    @property
    def key(self) -> str:
        return objects.input_key(self.id)


def begin(connection: Connection, owner_id: UUID, begun: Begun, seconds: float) -> Begun:
    """Store an upload whose multipart upload exists; it expires after ``seconds``. Needs a transaction.

    Raises:
        StorageQuotaExceeded
        TooManyUploads: as many are open as one owner may have under way.
    """
    limit = settings().owner_uploads_at_once
    quotas.lock(connection, owner_id)
    if limit and connection.execute(_open, {"owner_id": owner_id}).scalar_one() >= limit:
        raise TooManyUploads(limit=limit, retry_after=60)
    quotas.claim(connection, owner_id, begun.size, begun.id)
    values = {**msgspec.structs.asdict(begun), "owner_id": owner_id, "seconds": seconds}
    return msgspec.structs.replace(begun, expires_at=connection.execute(_insert, values).scalar_one())


def find(connection: Connection, upload_id: UUID, owner_id: UUID) -> Begun | None:
    """None when it is not that owner's, complete, aborted or expired."""
    row = connection.execute(_find, {"id": upload_id, "owner_id": owner_id}).mappings().one_or_none()
    return None if row is None else Begun(**row)


def hold(connection: Connection, upload_id: UUID, owner_id: UUID, seconds: float) -> bool:
    """Keep it from expiring for so long, while it is verified; False when it is gone."""
    values = {"id": upload_id, "owner_id": owner_id, "seconds": seconds}
    return connection.execute(_hold, values).rowcount == 1


def remove(connection: Connection, upload_id: UUID, owner_id: UUID) -> Begun | None:
    """Take it out, as a part of what becomes of it; None when somebody else has."""
    row = connection.execute(_remove, {"id": upload_id, "owner_id": owner_id}).mappings().one_or_none()
    return None if row is None else Begun(**row)


def remove_expired(connection: Connection, limit: int) -> list[Begun]:
    """Take out at most ``limit`` that have expired. Their leftovers are to be deleted after the commit and never
    before: as long as the row is there, a completion may make a file of the object."""
    return [Begun(**row) for row in connection.execute(_remove_expired, {"limit": limit}).mappings()]


def delete_leftovers(begun: Begun) -> bool:
    """What the storage has of an upload that was taken out for good; False when it stays for the sweep of leftovers."""
    return discarding.discard_multipart(begun.key, begun.upload_id, [begun.key])

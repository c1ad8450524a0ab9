"""The tables of resumable uploads.

``received`` is the offset: every byte before it is in the store, in the parts of a multipart upload and, after them, in
the object ``tail_key``. It moves together with what holds the bytes, in one statement, after the store has them.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from storage.database import metadata

uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),  # becomes the file's
    # an account that goes takes them along: what they have in the store is a leftover then
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("length", BigInteger),
    Column("received", BigInteger, nullable=False, server_default=text("0")),
    # of unknown length: up to where the request that is at work may go on; means nothing without a lease
    Column("reserved", BigInteger, nullable=False, server_default=text("0")),
    Column("part_size", BigInteger, nullable=False),  # of every part but the last
    Column("object_key", Text, nullable=False, unique=True),  # where the whole is to be
    Column("multipart_id", Text),
    Column("tail_key", Text),
    Column("tail_size", BigInteger, nullable=False, server_default=text("0")),
    Column("partial", Boolean, nullable=False, server_default=text("false")),
    Column("sources", ARRAY(Uuid)),  # of a final upload: the partial ones, in order
    Column("metadata", Text, nullable=False, server_default=text("''")),  # the header as it was sent
    Column("job", JSONB),  # what to order at completion
    Column("claim", Uuid),  # of the request that is at work on it
    Column("lease_until", DateTime(timezone=True)),
    Column("asked_at", DateTime(timezone=True)),  # somebody wants it; a request that waits for its client lets go
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("finishing_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("state IN ('receiving', 'finishing', 'complete')", name="state"),
    CheckConstraint("received BETWEEN 0 AND COALESCE(length, received)", name="received"),
    CheckConstraint("(state = 'receiving') = (length IS NULL OR received < length)", name="receiving"),
    CheckConstraint("(tail_key IS NULL) = (tail_size = 0)", name="tail"),
    CheckConstraint("(claim IS NULL) = (lease_until IS NULL)", name="claim_has_lease"),
)
Index("ix_uploads_expires_at", uploads.c.expires_at)
Index("ix_uploads_finishing", uploads.c.finishing_at, postgresql_where=text("state = 'finishing'"))
Index("ix_uploads_tail_key", uploads.c.tail_key, postgresql_where=text("tail_key IS NOT NULL"))

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", Uuid, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("etag", Text, nullable=False),
)

"""The tables of webhooks: endpoints, deliveries with their attempts, and how far the events have been read."""

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
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from storage.database import metadata

_now = text("now()")
_time = DateTime(timezone=True)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("failing_since", _time),
    # pg_snapshot: what was visible in it happened before the endpoint was there, or enabled, and is not for it
    Column("since", Text, nullable=False, server_default=text("CAST(pg_current_snapshot() AS text)")),
    Column("secrets", JSONB, nullable=False),  # newest first: {secret (encrypted), until (epoch; none for the first)}
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("updated_at", _time, nullable=False, server_default=_now),
    CheckConstraint("enabled = (disabled_reason IS NULL)", name="disabled_has_reason"),
    CheckConstraint("jsonb_array_length(secrets) > 0", name="has_secret"),
    Index("ix_webhooks_owner_id_id", "owner_id", text("id DESC")),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("webhook_id", Uuid, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("type", Text, nullable=False),
    Column("at", _time, nullable=False),  # when it happened
    Column("data", JSONB, nullable=False),
    Column("job_id", Uuid),  # no foreign key: what happened to a job is told though it was deleted
    Column("seq", Integer),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    Column("next_attempt_at", _time),
    Column(
        "failed_attempts", SmallInteger, nullable=False, server_default=text("0")
    ),  # since it began, or was replayed
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # ever
    Column("claim", Uuid),
    Column("claimed_by", Text),
    Column("lease_until", _time),
    Column("publishes", SmallInteger, nullable=False, server_default=text("0")),  # since somebody last took it up
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("completed_at", _time),
    UniqueConstraint("webhook_id", "job_id", "seq", name="uq_webhook_deliveries_event"),
    CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state_is_known"),
    CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_has_time"),
    CheckConstraint("(state = 'pending') = (completed_at IS NULL)", name="final_has_time"),
    CheckConstraint("(claim IS NULL) = (lease_until IS NULL)", name="claim_has_lease"),
    CheckConstraint("claim IS NULL OR state = 'pending'", name="claim_is_pending"),
    Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", text("id DESC")),
    Index(
        "ix_webhook_deliveries_due",
        "webhook_id",
        "next_attempt_at",
        postgresql_where=text("state = 'pending'"),
    ),
    Index("ix_webhook_deliveries_next", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    Index("ix_webhook_deliveries_claimed", "webhook_id", postgresql_where=text("claim IS NOT NULL")),
    Index(
        "ix_webhook_deliveries_completed_at",
        "completed_at",
        postgresql_where=text("completed_at IS NOT NULL"),
    ),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Uuid, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", _time, nullable=False),
    Column("status_code", SmallInteger),
    Column("milliseconds", Integer, nullable=False),
    Column("answer", Text),
    Column("fault", Text),
)

# One row. Between ``seen`` and ``until`` (snapshots) the events up to (txid, job_id, seq) have become deliveries;
# without ``until`` all that ``seen`` shows have.
webhook_feed = Table(
    "webhook_feed",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("seen", Text, nullable=False),
    Column("until", Text),
    Column("txid", BigInteger, nullable=False, server_default=text("0")),
    Column("job_id", Uuid, nullable=False, server_default=text("'00000000-0000-0000-0000-000000000000'")),
    Column("seq", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("single", name="one_row"),
)

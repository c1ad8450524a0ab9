"""Webhooks: endpoints, deliveries with their attempts, and how far the events have been read.

Revision 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)
_now = sa.text("now()")
_zero = sa.text("0")
_PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", _time, nullable=True),
        sa.Column("since", sa.Text(), server_default=sa.text("CAST(pg_current_snapshot() AS text)"), nullable=False),
        sa.Column("secrets", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", _time, server_default=_now, nullable=False),
        sa.Column("updated_at", _time, server_default=_now, nullable=False),
        sa.CheckConstraint("enabled = (disabled_reason IS NULL)", name=op.f("ck_webhooks_disabled_has_reason")),
        sa.CheckConstraint("jsonb_array_length(secrets) > 0", name=op.f("ck_webhooks_has_secret")),
        sa.ForeignKeyConstraint(["owner_id"], ["accounts.id"], name=op.f("fk_webhooks_owner_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_owner_id_id", "webhooks", ["owner_id", sa.text("id DESC")])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("next_attempt_at", _time, nullable=True),
        sa.Column("failed_attempts", sa.SmallInteger(), server_default=_zero, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=_zero, nullable=False),
        sa.Column("claim", sa.Uuid(), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("lease_until", _time, nullable=True),
        sa.Column("publishes", sa.SmallInteger(), server_default=_zero, nullable=False),
        sa.Column("created_at", _time, server_default=_now, nullable=False),
        sa.Column("completed_at", _time, nullable=True),
        *(
            sa.CheckConstraint(rule, name=op.f(f"ck_webhook_deliveries_{name}"))
            for name, rule in {
                "state_is_known": "state IN ('pending', 'delivered', 'failed')",
                "pending_has_time": "(state = 'pending') = (next_attempt_at IS NOT NULL)",
                "final_has_time": "(state = 'pending') = (completed_at IS NULL)",
                "claim_has_lease": "(claim IS NULL) = (lease_until IS NULL)",
                "claim_is_pending": "claim IS NULL OR state = 'pending'",
            }.items()
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("webhook_id", "job_id", "seq", name="uq_webhook_deliveries_event"),
    )
    op.create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", sa.text("id DESC")])
    for name, columns, condition in (
        ("due", ["webhook_id", "next_attempt_at"], _PENDING),
        ("next", ["next_attempt_at"], _PENDING),
        ("claimed", ["webhook_id"], sa.text("claim IS NOT NULL")),
        ("completed_at", ["completed_at"], sa.text("completed_at IS NOT NULL")),
    ):
        op.create_index(f"ix_webhook_deliveries_{name}", "webhook_deliveries", columns, postgresql_where=condition)
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_deliveries.id"],
            name=op.f("fk_webhook_attempts_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_webhook_attempts")),
    )
    op.create_table(
        "webhook_feed",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("seen", sa.Text(), nullable=False),
        sa.Column("until", sa.Text(), nullable=True),
        sa.Column("txid", sa.BigInteger(), server_default=_zero, nullable=False),
        sa.Column(
            "job_id",
            sa.Uuid(),
            server_default=sa.text("'00000000-0000-0000-0000-000000000000'"),
            nullable=False,
        ),
        sa.Column("seq", sa.Integer(), server_default=_zero, nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_webhook_feed_one_row")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_webhook_feed")),
    )
    op.execute("INSERT INTO webhook_feed (seen) VALUES (CAST(pg_current_snapshot() AS text))")


def downgrade() -> None:
    for table in ("webhook_feed", "webhook_attempts", "webhook_deliveries", "webhooks"):
        op.drop_table(table)

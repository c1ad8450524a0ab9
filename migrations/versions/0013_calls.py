"""Calls: what the exchange delivers, the calls and legs it adds up to, and the rules of matching recordings with them.

Revision 0013, after 0012.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)
_now = sa.text("now()")
_json = postgresql.JSONB(astext_type=sa.Text())
_WAITING = sa.text("status = 'unmatched' AND matched_by IS NULL AND started_at IS NOT NULL")
_CHECKS = {
    "matched_has_call": "(status = 'matched') = (call_id IS NOT NULL)",
    "matched_by_somebody": "status = 'unmatched' OR matched_by IS NOT NULL",
    "rule_matches": "status = 'matched' OR matched_by IS DISTINCT FROM 'rule'",
}


def _deliveries() -> None:
    op.create_table(
        "mango_deliveries",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=True),
        sa.Column("received_at", _time, server_default=_now, nullable=False),
        sa.Column("applied_at", _time, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "applied_at IS NULL OR error IS NULL", name=op.f("ck_mango_deliveries_failed_is_not_applied")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mango_deliveries")),
        sa.UniqueConstraint("kind", "hash", name="uq_mango_deliveries_content"),
    )
    for name, column, condition in (
        ("entry_id", "entry_id", "entry_id IS NOT NULL"),
        ("waiting", "id", "applied_at IS NULL AND error IS NULL"),
        ("failed", "id", "error IS NOT NULL"),
    ):
        op.create_index(
            f"ix_mango_deliveries_{name}", "mango_deliveries", [column], postgresql_where=sa.text(condition)
        )


def _calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=True),
        *(
            sa.Column(f"{side}_{form}", sa.Text(), nullable=True)
            for form in ("number", "raw")
            for side in ("from", "to", "line")
        ),
        sa.Column("from_extension", sa.Text(), nullable=True),
        sa.Column("to_extension", sa.Text(), nullable=True),
        sa.Column("from_names", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("to_names", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("began_at", _time, nullable=True),
        sa.Column("answered_at", _time, nullable=True),
        sa.Column("ended_at", _time, nullable=True),
        sa.Column("talk_seconds", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.Text(), server_default=sa.text("'in_progress'"), nullable=False),
        sa.Column("disconnect_reason", sa.Integer(), nullable=True),
        sa.Column("exchange_recordings", _json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("created_at", _time, server_default=_now, nullable=False),
        sa.Column("updated_at", _time, server_default=_now, nullable=False),
        sa.CheckConstraint(
            "direction IN ('internal', 'inbound', 'outbound')", name=op.f("ck_calls_direction_is_known")
        ),
        sa.CheckConstraint(
            "outcome IN ('in_progress', 'answered', 'unanswered')", name=op.f("ck_calls_outcome_is_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_calls_entry_id")),
    )
    op.create_index("ix_calls_began_at", "calls", ["began_at"])
    op.create_index("ix_calls_answered_at", "calls", ["answered_at"])
    op.create_index("ix_calls_names", "calls", ["from_names", "to_names"], postgresql_using="gin")
    op.create_table(
        "call_legs",
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("place", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("leg_id", sa.Text(), nullable=False),
        sa.Column("leg", _json, nullable=False),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_call_legs_call_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id", "place", name=op.f("pk_call_legs")),
        sa.UniqueConstraint("call_id", "leg_id", name="uq_call_legs_call_id_leg_id"),
    )


def upgrade() -> None:
    _deliveries()
    _calls()
    op.add_column("recordings", sa.Column("match_tried_at", _time, nullable=True))
    op.create_foreign_key(op.f("fk_recordings_call_id"), "recordings", "calls", ["call_id"], ["id"])
    for name, rule in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_recordings_{name}"), "recordings", rule)
    op.create_index(
        "ix_recordings_by_rule",
        "recordings",
        ["call_id"],
        unique=True,
        postgresql_where=sa.text("matched_by = 'rule'"),
    )
    op.create_index(
        "ix_recordings_without_call", "recordings", ["id"], postgresql_where=sa.text("status = 'unmatched'")
    )
    op.create_index("ix_recordings_waiting", "recordings", ["started_at"], postgresql_where=_WAITING)
    op.create_index(
        "ix_recordings_match_tried_at",
        "recordings",
        [sa.text("match_tried_at NULLS FIRST")],
        postgresql_where=_WAITING,
    )


def downgrade() -> None:
    for name in ("match_tried_at", "waiting", "without_call", "by_rule"):
        op.drop_index(f"ix_recordings_{name}", "recordings")
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_recordings_{name}"), "recordings")
    op.drop_constraint(op.f("fk_recordings_call_id"), "recordings")
    op.drop_column("recordings", "match_tried_at")
    for table in ("call_legs", "calls", "mango_deliveries"):
        op.drop_table(table)

"""Slots of the schedule, how far housekeeping has come, fences around leftovers, and what retention asks of jobs.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ticks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_ticks")),
    )
    op.create_table(
        "housekeeping",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("after", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("found", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("found_before", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("held", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("passed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_housekeeping")),
    )
    op.create_table(
        "leftovers",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_leftovers")),
    )
    op.create_index(op.f("ix_leftovers_found_at"), "leftovers", ["found_at"])
    op.create_index(
        "ix_jobs_completed_at", "jobs", ["completed_at"], postgresql_where=sa.text("completed_at IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_quarantined",
        "jobs",
        ["completed_at"],
        postgresql_where=sa.text("error_code IN ('worker_lost', 'step_timeout')"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_quarantined", "jobs")
    op.drop_index("ix_jobs_completed_at", "jobs")
    for table in ("leftovers", "housekeeping", "ticks"):
        op.drop_table(table)

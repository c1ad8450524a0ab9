"""Circuit breakers, and jobs that are put off until one lets them through.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "circuits",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("opened_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probes", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("probe", sa.Uuid(), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(probe IS NULL) = (probe_until IS NULL)", name=op.f("ck_circuits_probe_has_end")),
        sa.CheckConstraint("probe IS NULL OR opened_until IS NOT NULL", name=op.f("ck_circuits_closed_has_no_probe")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_circuits")),
    )
    op.add_column("jobs", sa.Column("delayed_since", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("circuit", sa.Text()))
    op.create_index(
        "ix_jobs_circuit", "jobs", ["circuit", "claimed_at"], postgresql_where=sa.text("circuit IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_circuit", "jobs")
    op.drop_column("jobs", "circuit")
    op.drop_column("jobs", "delayed_since")
    op.drop_table("circuits")

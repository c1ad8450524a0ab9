"""Engine: priorities, a limit of running jobs per owner, and when a job was published.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DUE = "claim IS NULL AND NOT awaiting AND {}status IN ('queued', 'processing')"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("published_at", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("publishes", sa.SmallInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("request_id", sa.Text))
    op.add_column("jobs", sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("1")))
    op.add_column("jobs", sa.Column("admitted", sa.Boolean, nullable=False, server_default=sa.text("false")))
    op.execute("UPDATE jobs SET admitted = true WHERE status IN ('queued', 'processing')")
    op.create_check_constraint(op.f("ck_jobs_priority_is_known"), "jobs", "priority BETWEEN 0 AND 2")
    op.create_check_constraint(op.f("ck_jobs_processing_is_admitted"), "jobs", "admitted OR status <> 'processing'")
    _due("admitted AND ")
    _parents(sa.text("parent_id IS NOT NULL"))
    op.create_index(
        "ix_jobs_cancelling",
        "jobs",
        ["cancel_requested_at"],
        postgresql_where=sa.text("cancel_requested_at IS NOT NULL AND status IN ('pending', 'queued', 'processing')"),
    )
    op.create_index(
        "ix_jobs_backlog",
        "jobs",
        ["owner_id", "priority", "id"],
        postgresql_where=sa.text("status = 'queued' AND NOT admitted"),
    )
    op.create_index(
        "ix_jobs_running",
        "jobs",
        ["owner_id"],
        postgresql_where=sa.text("admitted AND status IN ('queued', 'processing')"),
    )


def downgrade() -> None:
    for index in ("ix_jobs_cancelling", "ix_jobs_backlog", "ix_jobs_running"):
        op.drop_index(index, "jobs")
    _parents(None)
    _due("")
    for column in ("admitted", "priority", "request_id", "publishes", "published_at"):
        op.drop_column("jobs", column)


def _due(admitted: str) -> None:
    op.drop_index("ix_jobs_due", "jobs")
    op.create_index("ix_jobs_due", "jobs", ["republish_at"], postgresql_where=sa.text(DUE.format(admitted)))


def _parents(where: sa.TextClause | None) -> None:
    op.drop_index("ix_jobs_parent_id", "jobs")
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"], postgresql_where=where)

"""Jobs have a lane of the broker's queue, by how many of their owner's are before them.

Revision 0011, after 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lane", sa.SmallInteger(), server_default=sa.text("0"), nullable=False))
    op.create_check_constraint(op.f("ck_jobs_lane_is_known"), "jobs", "lane BETWEEN 0 AND 9")


def downgrade() -> None:
    op.drop_column("jobs", "lane")

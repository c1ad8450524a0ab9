"""How fast the present stage of a job goes, and when it will likely be over.

Revision 0014, after 0013.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("pace_share", sa.Double()))
    op.add_column("jobs", sa.Column("pace_since", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("eta_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("jobs", "eta_at")
    op.drop_column("jobs", "pace_since")
    op.drop_column("jobs", "pace_share")

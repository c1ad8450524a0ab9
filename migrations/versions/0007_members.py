"""Where the members of archives lie, so that one can be read by itself; and what an upload has shown of them.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("local_headers", sa.Text(), nullable=True))
    op.add_column("archive_entries", sa.Column("header_offset", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("archive_entries", "header_offset")
    op.drop_column("files", "local_headers")

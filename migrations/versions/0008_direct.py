"""Uploads straight to the object storage, objects that several files share, and what an owner's files take.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "direct_uploads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("part_size", sa.BigInteger(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("size >= 0", name=op.f("ck_direct_uploads_size")),
        sa.CheckConstraint("part_size > 0", name=op.f("ck_direct_uploads_part_size")),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["accounts.id"], name=op.f("fk_direct_uploads_owner_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_direct_uploads")),
    )
    op.create_index("ix_direct_uploads_owner_id", "direct_uploads", ["owner_id"])
    op.create_index("ix_direct_uploads_expires_at", "direct_uploads", ["expires_at"])
    op.drop_constraint("uq_files_object_key", "files")
    op.create_index(op.f("ix_files_object_key"), "files", ["object_key"])
    op.create_index("ix_files_owner_id_sha256", "files", ["owner_id", "sha256"], postgresql_include=["size"])


def downgrade() -> None:
    """Fails where files share an object: the code before this would delete it with the first of them."""
    op.drop_index("ix_files_owner_id_sha256", "files")
    op.drop_index(op.f("ix_files_object_key"), "files")
    op.create_unique_constraint(op.f("uq_files_object_key"), "files", ["object_key"])
    op.drop_table("direct_uploads")

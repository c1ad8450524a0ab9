"""Messages are known by account and server too, and only for what was decided about them.

Revision 0016, after 0015.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_PLACE = "uq_mail_messages_place"
_COLUMNS = ("source", "pattern", "decided", "try_after")

# What was given up, and what counted as known because of it, is found again: each folder is looked through once more.
_LOOK_AGAIN = (
    "DELETE FROM mail_messages WHERE state = 'skipped' AND reason = 'gone'",
    """DELETE FROM mail_messages AS late WHERE state = 'duplicate' AND reason = 'same_message' AND NOT EXISTS (
        SELECT FROM mail_messages AS kept WHERE kept.mailbox_id = late.mailbox_id AND kept.folder = late.folder
            AND kept.fingerprint = late.fingerprint AND kept.uidvalidity <> late.uidvalidity
            AND (kept.state = 'stored' OR kept.state = 'duplicate' AND kept.reason = 'same_audio'))""",
    "UPDATE mailboxes SET uidvalidity = NULL, last_uid = 0",
)


def upgrade() -> None:
    op.add_column("mailboxes", sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("mail_messages", sa.Column("source", sa.Text()))
    op.add_column("mail_messages", sa.Column("pattern", sa.Text()))
    op.add_column(
        "mail_messages",
        sa.Column("decided", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("mail_messages", sa.Column("try_after", sa.DateTime(timezone=True)))
    op.execute(
        """UPDATE mail_messages SET source = username || '@' || lower(host) || ':' || port
        FROM mailboxes WHERE mailboxes.id = mailbox_id"""
    )
    for statement in _LOOK_AGAIN:
        op.execute(statement)
    op.alter_column("mail_messages", "source", nullable=False)
    op.drop_constraint(_PLACE, "mail_messages")
    op.create_unique_constraint(_PLACE, "mail_messages", ["mailbox_id", "source", "folder", "uidvalidity", "uid"])


def downgrade() -> None:
    op.drop_constraint(_PLACE, "mail_messages")
    # of two accounts the one that the mailbox is in now
    op.execute(
        """DELETE FROM mail_messages USING mailboxes WHERE mailboxes.id = mailbox_id
            AND source <> username || '@' || lower(host) || ':' || port"""
    )
    for column in _COLUMNS:
        op.drop_column("mail_messages", column)
    op.drop_column("mailboxes", "revision")
    op.create_unique_constraint(_PLACE, "mail_messages", ["mailbox_id", "folder", "uidvalidity", "uid"])

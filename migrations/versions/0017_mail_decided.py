"""Messages are known by account and server too, and only for what was decided about them.

Revision 0017, after 0016.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
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

# As in 0015, by mailbox too, and of recordings as well as of messages.
_COUNTED = """
CREATE OR REPLACE FUNCTION {table}_are_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO mail_message_counts (mailbox_id, state, number)
            SELECT mailbox_id, {state}, count(*) FROM after WHERE mailbox_id IS NOT NULL GROUP BY mailbox_id, {state};
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO mail_message_counts (mailbox_id, state, number)
            SELECT mailbox_id, {state}, -count(*) FROM before WHERE mailbox_id IS NOT NULL GROUP BY mailbox_id, {state};
    ELSE
        INSERT INTO mail_message_counts (mailbox_id, state, number)
            SELECT mailbox_id, {state}, sum(one) FROM (
                SELECT mailbox_id, {state}, 1 AS one FROM after
                UNION ALL SELECT mailbox_id, {state}, -1 FROM before) AS changed
            WHERE mailbox_id IS NOT NULL GROUP BY mailbox_id, {state} HAVING sum(one) <> 0;
    END IF;
    RETURN NULL;
END $$"""
_TRIGGERS = """
CREATE TRIGGER recordings_inserted AFTER INSERT ON recordings REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION recordings_are_counted();
CREATE TRIGGER recordings_updated AFTER UPDATE ON recordings REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION recordings_are_counted();
CREATE TRIGGER recordings_deleted AFTER DELETE ON recordings REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION recordings_are_counted();
"""
_RECOUNT = """
INSERT INTO mail_message_counts (mailbox_id, state, number)
    SELECT mailbox_id, state, count(*) FROM mail_messages GROUP BY mailbox_id, state
    UNION ALL SELECT mailbox_id, status, count(*) FROM recordings WHERE mailbox_id IS NOT NULL
        GROUP BY mailbox_id, status
"""


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
    op.add_column("mail_message_counts", sa.Column("mailbox_id", sa.Uuid()))
    op.execute(_COUNTED.format(table="mail_messages", state="state"))
    op.execute(_COUNTED.format(table="recordings", state="status"))
    op.execute(_TRIGGERS)
    op.execute("TRUNCATE mail_message_counts")
    op.execute(_RECOUNT)
    op.alter_column("mail_message_counts", "mailbox_id", nullable=False)
    op.drop_constraint(_PLACE, "mail_messages")
    op.create_unique_constraint(_PLACE, "mail_messages", ["mailbox_id", "source", "folder", "uidvalidity", "uid"])


_COUNTED_BEFORE = """
CREATE OR REPLACE FUNCTION mail_messages_are_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO mail_message_counts (state, number) SELECT state, count(*) FROM after GROUP BY state;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO mail_message_counts (state, number) SELECT state, -count(*) FROM before GROUP BY state;
    ELSE
        INSERT INTO mail_message_counts (state, number)
            SELECT state, sum(one) FROM (
                SELECT state, 1 AS one FROM after UNION ALL SELECT state, -1 FROM before) AS changed
            GROUP BY state HAVING sum(one) <> 0;
    END IF;
    RETURN NULL;
END $$"""


def downgrade() -> None:
    for when in ("inserted", "updated", "deleted"):
        op.execute(f"DROP TRIGGER recordings_{when} ON recordings")
    op.execute("DROP FUNCTION recordings_are_counted()")
    op.execute(_COUNTED_BEFORE)
    op.execute("DELETE FROM mail_message_counts WHERE state IN ('matched', 'unmatched')")
    op.drop_column("mail_message_counts", "mailbox_id")
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

"""What retention of calls looks for, and numbers of messages that need no counting.

Revision 0015, after 0014.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# What a statement changes is a row of its own, so that nobody waits for anybody; `recordings.retention` adds them up.
_COUNT = """
CREATE FUNCTION mail_messages_are_counted() RETURNS trigger LANGUAGE plpgsql AS $$
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
END $$;
CREATE TRIGGER mail_messages_inserted AFTER INSERT ON mail_messages REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION mail_messages_are_counted();
CREATE TRIGGER mail_messages_updated AFTER UPDATE ON mail_messages REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION mail_messages_are_counted();
CREATE TRIGGER mail_messages_deleted AFTER DELETE ON mail_messages REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION mail_messages_are_counted();
"""


def upgrade() -> None:
    op.create_index("ix_calls_created_at", "calls", ["created_at"])
    op.create_index("ix_mango_deliveries_received_at", "mango_deliveries", ["received_at"])
    op.create_table(
        "mail_message_counts",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_message_counts")),
    )
    op.execute(_COUNT)
    op.execute(
        "INSERT INTO mail_message_counts (state, number) SELECT state, count(*) FROM mail_messages GROUP BY state"
    )


def downgrade() -> None:
    for when in ("inserted", "updated", "deleted"):
        op.execute(f"DROP TRIGGER mail_messages_{when} ON mail_messages")
    op.execute("DROP FUNCTION mail_messages_are_counted()")
    op.drop_table("mail_message_counts")
    op.drop_index("ix_mango_deliveries_received_at", "mango_deliveries")
    op.drop_index("ix_calls_created_at", "calls")

"""Recordings: mailboxes, the messages claimed in them, the recordings that came with them, and who has listened.

Revision 0012, after 0011.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)
_now = sa.text("now()")
_zero = sa.text("0")
_json = postgresql.JSONB(astext_type=sa.Text())


def _mailboxes() -> None:
    op.create_table(
        "mailboxes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("security", sa.Text(), nullable=False),
        sa.Column("auth", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("rules", _json, nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("after_action", sa.Text(), nullable=False),
        sa.Column("move_to", sa.Text(), nullable=True),
        sa.Column("poll_seconds", sa.Integer(), nullable=False),
        sa.Column("scheduled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("next_poll_at", _time, server_default=_now, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("uidvalidity", sa.BigInteger(), nullable=True),
        sa.Column("last_uid", sa.BigInteger(), server_default=_zero, nullable=False),
        sa.Column("checked_at", _time, nullable=True),
        sa.Column("failures", sa.Integer(), server_default=_zero, nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", _time, server_default=_now, nullable=False),
        sa.Column("updated_at", _time, server_default=_now, nullable=False),
        sa.CheckConstraint("enabled = (disabled_reason IS NULL)", name=op.f("ck_mailboxes_disabled_has_reason")),
        sa.CheckConstraint(
            "(after_action = 'move') = (move_to IS NOT NULL)", name=op.f("ck_mailboxes_move_has_folder")
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["accounts.id"], name=op.f("fk_mailboxes_owner_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_mailboxes_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailboxes")),
    )
    op.create_index("ix_mailboxes_owner_id_id", "mailboxes", ["owner_id", sa.text("id DESC")])
    op.create_index(
        "ix_mailboxes_next_poll_at", "mailboxes", ["next_poll_at"], postgresql_where=sa.text("enabled AND scheduled")
    )


def _messages() -> None:
    op.create_table(
        "mail_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("mailbox_id", sa.Uuid(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("uidvalidity", sa.BigInteger(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'claimed'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("received_at", _time, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("parts", _json, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("failures", sa.SmallInteger(), server_default=_zero, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", _time, server_default=_now, nullable=False),
        sa.Column("finished_at", _time, nullable=True),
        sa.Column("acted_at", _time, nullable=True),
        sa.CheckConstraint(
            "state IN ('claimed', 'stored', 'skipped', 'failed', 'duplicate')",
            name=op.f("ck_mail_messages_state_is_known"),
        ),
        sa.CheckConstraint("(state = 'claimed') = (finished_at IS NULL)", name=op.f("ck_mail_messages_final_has_time")),
        sa.ForeignKeyConstraint(
            ["mailbox_id"], ["mailboxes.id"], name=op.f("fk_mail_messages_mailbox_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_mail_messages_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mail_messages")),
        sa.UniqueConstraint("mailbox_id", "folder", "uidvalidity", "uid", name="uq_mail_messages_place"),
    )
    for name, columns, condition in (
        ("claimed", ["mailbox_id", "uid"], "state = 'claimed'"),
        ("to_act", ["mailbox_id"], "state IN ('stored', 'duplicate') AND acted_at IS NULL"),
        ("fingerprint", ["mailbox_id", "fingerprint"], None),
        ("job_id", ["job_id"], None),
    ):
        where = {} if condition is None else {"postgresql_where": sa.text(condition)}
        op.create_index(f"ix_mail_messages_{name}", "mail_messages", columns, **where)


def _recordings() -> None:
    op.create_table(
        "recordings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("mailbox_id", sa.Uuid(), nullable=True),
        sa.Column("mail_message_id", sa.Uuid(), nullable=True),
        sa.Column("part", sa.Text(), nullable=True),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("from_number", sa.Text(), nullable=True),
        sa.Column("to_number", sa.Text(), nullable=True),
        sa.Column("started_at", _time, nullable=True),
        sa.Column("received_at", _time, nullable=False),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("codec", sa.Text(), nullable=True),
        sa.Column("channels", sa.SmallInteger(), nullable=True),
        sa.Column("sample_rate", sa.Integer(), nullable=True),
        sa.Column("bitrate", sa.Integer(), nullable=True),
        sa.Column("speech_share", sa.Float(), nullable=True),
        sa.Column("warning", sa.Text(), nullable=True),
        sa.Column("listens", sa.SmallInteger(), server_default=_zero, nullable=False),
        sa.Column("listened_at", _time, nullable=True),
        sa.Column("heard", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'unmatched'"), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=True),
        sa.Column("matched_at", _time, nullable=True),
        sa.Column("matched_by", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", _time, server_default=_now, nullable=False),
        sa.CheckConstraint("status IN ('unmatched', 'matched')", name=op.f("ck_recordings_status_is_known")),
        sa.CheckConstraint("matched_by IN ('rule', 'hand')", name=op.f("ck_recordings_matched_by_is_known")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_recordings_size")),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["accounts.id"], name=op.f("fk_recordings_owner_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["mailbox_id"], ["mailboxes.id"], name=op.f("fk_recordings_mailbox_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["mail_message_id"],
            ["mail_messages.id"],
            name=op.f("fk_recordings_mail_message_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_recordings_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recordings")),
        sa.UniqueConstraint("object_key", name=op.f("uq_recordings_object_key")),
        sa.UniqueConstraint("owner_id", "sha256", name="uq_recordings_owner_id_sha256"),
    )
    op.create_index("ix_recordings_owner_id_id", "recordings", ["owner_id", sa.text("id DESC")])
    for name, columns, condition in (
        ("mailbox_id", ["mailbox_id"], None),
        ("mail_message_id", ["mail_message_id"], None),
        ("job_id", ["job_id"], None),
        ("call_id", ["call_id"], "call_id IS NOT NULL"),
        ("created_at", ["created_at"], None),
        ("unheard", ["id"], "NOT heard"),
        ("unmatched", ["owner_id", "started_at"], "status = 'unmatched' AND started_at IS NOT NULL"),
    ):
        where = {} if condition is None else {"postgresql_where": sa.text(condition)}
        op.create_index(f"ix_recordings_{name}", "recordings", columns, **where)


def upgrade() -> None:
    _mailboxes()
    _messages()
    _recordings()
    op.create_table(
        "audio_accesses",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("at", _time, server_default=_now, nullable=False),
        sa.Column("part", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audio_accesses")),
    )
    op.create_index("ix_audio_accesses_recording_id_id", "audio_accesses", ["recording_id", sa.text("id DESC")])


def downgrade() -> None:
    for table in ("audio_accesses", "recordings", "mail_messages", "mailboxes"):
        op.drop_table(table)

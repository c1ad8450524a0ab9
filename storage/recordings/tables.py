"""The tables of recordings: mailboxes, the messages claimed in them, the recordings, and who has listened."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from storage.database import metadata

_now = text("now()")
_time = DateTime(timezone=True)
_zero = text("0")

mailboxes = Table(
    "mailboxes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("security", Text, nullable=False),  # tls, starttls, none
    Column("auth", Text, nullable=False),  # password, xoauth2
    Column("username", Text, nullable=False),
    Column("secret", Text, nullable=False),  # encrypted: the password, or the access token
    Column("folder", Text, nullable=False),
    Column("rules", JSONB, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("after_action", Text, nullable=False),  # none, seen, move
    Column("move_to", Text),
    Column("poll_seconds", Integer, nullable=False),
    Column("scheduled", Boolean, nullable=False, server_default=text("true")),
    Column("next_poll_at", _time, nullable=False, server_default=_now),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="SET NULL")),  # the last one: at most one is unfinished
    Column("revision", Integer, nullable=False, server_default=_zero),  # of account, folder and rules together
    # how far a scheduled poll has looked: all below has been seen with these rules
    Column("uidvalidity", BigInteger),
    Column("last_uid", BigInteger, nullable=False, server_default=_zero),
    Column("checked_at", _time),
    Column("failures", Integer, nullable=False, server_default=_zero),  # in a row
    Column("error_code", Text),
    Column("error_message", Text),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("updated_at", _time, nullable=False, server_default=_now),
    CheckConstraint("enabled = (disabled_reason IS NULL)", name="disabled_has_reason"),
    CheckConstraint("(after_action = 'move') = (move_to IS NOT NULL)", name="move_has_folder"),
    Index("ix_mailboxes_owner_id_id", "owner_id", text("id DESC")),
    Index("ix_mailboxes_next_poll_at", "next_poll_at", postgresql_where=text("enabled AND scheduled")),
)

mail_messages = Table(
    "mail_messages",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("mailbox_id", Uuid, ForeignKey("mailboxes.id", ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False),  # account and server: the same numbers elsewhere are other messages
    Column("folder", Text, nullable=False),
    Column("uidvalidity", BigInteger, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'claimed'")),
    Column("reason", Text),  # a code, of those that were skipped, failed or are duplicates
    Column("message_id", Text),  # the header, which may be missing, or another message's
    Column("fingerprint", Text),  # of Message-ID, date, names and sizes; none without a Message-ID
    Column("received_at", _time),
    Column("size", BigInteger),
    # of audio, as BODYSTRUCTURE has them; none in a claimed one: the server broke off at its description
    Column("parts", JSONB, nullable=False, server_default=text("'[]'")),
    Column("pattern", Text),  # of the rules that chose the parts
    Column("decided", ARRAY(Text), nullable=False, server_default=text("'{}'")),  # parts taken by earlier rules
    Column("failures", SmallInteger, nullable=False, server_default=_zero),
    Column("try_after", _time),  # of one at which the connection broke off: alone, and not before
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="SET NULL")),  # which claimed it
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("finished_at", _time),
    Column("acted_at", _time),  # the after-action was done
    CheckConstraint("state IN ('claimed', 'stored', 'skipped', 'failed', 'duplicate')", name="state_is_known"),
    CheckConstraint("(state = 'claimed') = (finished_at IS NULL)", name="final_has_time"),
    UniqueConstraint("mailbox_id", "source", "folder", "uidvalidity", "uid", name="uq_mail_messages_place"),
    Index("ix_mail_messages_claimed", "mailbox_id", "uid", postgresql_where=text("state = 'claimed'")),
    Index(
        "ix_mail_messages_to_act",
        "mailbox_id",
        postgresql_where=text("state IN ('stored', 'duplicate') AND acted_at IS NULL"),
    ),
    Index("ix_mail_messages_fingerprint", "mailbox_id", "fingerprint"),
    Index("ix_mail_messages_job_id", "job_id"),
)

# Written by triggers: what each statement has changed. The sum by mailbox and state is the number of messages, and by
# status that of recordings. No foreign key: a mailbox's rows come to nothing when it goes, and are swept.
mail_message_counts = Table(
    "mail_message_counts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("mailbox_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),  # of messages, or the status of recordings
    Column("number", BigInteger, nullable=False),
)

recordings = Table(
    "recordings",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="RESTRICT"), nullable=False),
    Column("mailbox_id", Uuid, ForeignKey("mailboxes.id", ondelete="SET NULL")),
    Column("mail_message_id", Uuid, ForeignKey("mail_messages.id", ondelete="SET NULL")),
    Column("part", Text),  # of the message
    Column("object_key", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("content_type", Text, nullable=False),  # by the content
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("from_number", Text),  # E.164
    Column("to_number", Text),  # E.164
    Column("started_at", _time),  # the call, by the name
    Column("received_at", _time, nullable=False),
    Column("duration_seconds", Float),
    Column("codec", Text),
    Column("channels", SmallInteger),
    Column("sample_rate", Integer),
    Column("bitrate", Integer),  # bit/s
    Column("speech_share", Float),
    Column("warning", Text),  # a code
    Column("listens", SmallInteger, nullable=False, server_default=_zero),  # attempts at the five above
    Column("listened_at", _time),
    Column("heard", Boolean, nullable=False, server_default=text("false")),  # no further attempt is to be made
    Column("status", Text, nullable=False, server_default=text("'unmatched'")),
    Column("call_id", Uuid),
    Column("matched_at", _time),
    Column("matched_by", Text),  # rule, hand
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="SET NULL")),
    Column("created_at", _time, nullable=False, server_default=_now),
    CheckConstraint("status IN ('unmatched', 'matched')", name="status_is_known"),
    CheckConstraint("matched_by IN ('rule', 'hand')", name="matched_by_is_known"),
    CheckConstraint("size >= 0", name="size"),
    UniqueConstraint("owner_id", "sha256", name="uq_recordings_owner_id_sha256"),
    Index("ix_recordings_owner_id_id", "owner_id", text("id DESC")),
    Index("ix_recordings_mailbox_id", "mailbox_id"),
    Index("ix_recordings_mail_message_id", "mail_message_id"),
    Index("ix_recordings_job_id", "job_id"),
    Index("ix_recordings_call_id", "call_id", postgresql_where=text("call_id IS NOT NULL")),
    Index("ix_recordings_created_at", "created_at"),
    Index("ix_recordings_unheard", "id", postgresql_where=text("NOT heard")),
    # what a call that comes to be known later could match
    Index(
        "ix_recordings_unmatched",
        "owner_id",
        "started_at",
        postgresql_where=text("status = 'unmatched' AND started_at IS NOT NULL"),
    ),
)

# No foreign keys: who listened is known longer than the recording and the account.
audio_accesses = Table(
    "audio_accesses",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("recording_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("username", Text, nullable=False),
    Column("at", _time, nullable=False, server_default=_now),
    Column("part", Text),  # the header Range
    Index("ix_audio_accesses_recording_id_id", "recording_id", text("id DESC")),
)

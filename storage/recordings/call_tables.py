"""The tables of calls: what the exchange has delivered, and the calls and legs it adds up to; and what a recording has
to do with them.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from storage.database import metadata
from storage.recordings.tables import recordings

_now = text("now()")
_time = DateTime(timezone=True)
_none = text("'[]'")

# Everything as it came: calls can be made of it anew.
mango_deliveries = Table(
    "mango_deliveries",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of raw
    Column("raw", LargeBinary, nullable=False),  # the signed text; bytes, because it need not be UTF-8
    Column("source", Text, nullable=False),  # the address it came from
    Column("entry_id", Text),  # of the call it was applied to; null before that, and for what belongs to none
    Column("received_at", _time, nullable=False, server_default=_now),
    Column("applied_at", _time),
    Column("error", Text),  # why it cannot be applied
    UniqueConstraint("kind", "hash", name="uq_mango_deliveries_content"),
    CheckConstraint("applied_at IS NULL OR error IS NULL", name="failed_is_not_applied"),
    Index("ix_mango_deliveries_entry_id", "entry_id", postgresql_where=text("entry_id IS NOT NULL")),
    Index("ix_mango_deliveries_waiting", "id", postgresql_where=text("applied_at IS NULL AND error IS NULL")),
    Index("ix_mango_deliveries_failed", "id", postgresql_where=text("error IS NOT NULL")),
)

calls = Table(
    "calls",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("entry_id", Text, nullable=False, unique=True),
    Column("direction", Text),
    Column("from_number", Text),  # E.164, as the next two
    Column("to_number", Text),
    Column("line_number", Text),
    Column("from_raw", Text),
    Column("to_raw", Text),
    Column("line_raw", Text),
    Column("from_extension", Text),
    Column("to_extension", Text),
    # what either side may be called in a recording's name: domain.recordings.matching
    Column("from_names", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("to_names", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("began_at", _time),
    Column("answered_at", _time),
    Column("ended_at", _time),
    Column("talk_seconds", Integer),
    Column("outcome", Text, nullable=False, server_default=text("'in_progress'")),
    Column("disconnect_reason", Integer),
    Column("exchange_recordings", JSONB, nullable=False, server_default=_none),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("updated_at", _time, nullable=False, server_default=_now),
    CheckConstraint("direction IN ('internal', 'inbound', 'outbound')", name="direction_is_known"),
    CheckConstraint("outcome IN ('in_progress', 'answered', 'unanswered')", name="outcome_is_known"),
    Index("ix_calls_began_at", "began_at"),
    Index("ix_calls_answered_at", "answered_at"),
    Index("ix_calls_names", "from_names", "to_names", postgresql_using="gin"),
)

call_legs = Table(
    "call_legs",
    metadata,
    Column("call_id", Uuid, ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    Column("place", SmallInteger, primary_key=True, autoincrement=False),  # in the order they came up, from 0
    Column("leg_id", Text, nullable=False),  # the exchange's `call_id`
    Column("leg", JSONB, nullable=False),  # domain.recordings.calls.Leg
    UniqueConstraint("call_id", "leg_id", name="uq_call_legs_call_id_leg_id"),
)

recordings.append_column(Column("match_tried_at", _time))  # by the rule
for _rule in (
    ForeignKeyConstraint(["call_id"], ["calls.id"]),
    CheckConstraint("(status = 'matched') = (call_id IS NOT NULL)", name="matched_has_call"),
    CheckConstraint("status = 'unmatched' OR matched_by IS NOT NULL", name="matched_by_somebody"),
    CheckConstraint("status = 'matched' OR matched_by IS DISTINCT FROM 'rule'", name="rule_matches"),
):
    recordings.append_constraint(_rule)
_WAITING = "status = 'unmatched' AND matched_by IS NULL AND started_at IS NOT NULL"
Index("ix_recordings_by_rule", recordings.c.call_id, unique=True, postgresql_where=text("matched_by = 'rule'"))
Index("ix_recordings_without_call", recordings.c.id, postgresql_where=text("status = 'unmatched'"))  # to be counted
Index("ix_recordings_waiting", recordings.c.started_at, postgresql_where=text(_WAITING))
Index(
    "ix_recordings_match_tried_at",
    recordings.c.match_tried_at.nulls_first(),
    postgresql_where=text(_WAITING),
)

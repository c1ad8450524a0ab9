"""The tables of the engine. Rules stand in the database too: CHECKs here, and the triggers of migration 0001."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from domain.jobs import FINAL, Status
from storage.database import metadata
from storage.transaction_ids import TransactionId

_now = text("now()")
_time = DateTime(timezone=True)
_final = f"({', '.join(repr(str(status)) for status in sorted(FINAL))})"
_status = Enum(*(status.value for status in Status), name="job_status", metadata=metadata)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner_id", Uuid, ForeignKey("accounts.id", ondelete="RESTRICT"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("params", JSONB, nullable=False, server_default=text("'{}'")),
    Column("input_file_id", Uuid, ForeignKey("files.id", ondelete="RESTRICT")),
    Column("owns_input", Boolean, nullable=False, server_default=text("false")),  # the file came with the job
    Column("parent_id", Uuid, ForeignKey("jobs.id", ondelete="SET NULL")),
    Column("status", _status, nullable=False),
    Column("stage", Text),
    Column("progress", SmallInteger, nullable=False, server_default=text("0")),
    Column("message", Text),
    # where the present stage stood when it was first looked at, and when it will likely be over (domain.pace)
    Column("pace_share", Double),
    Column("pace_since", _time),
    Column("eta_at", _time),
    Column("result_key", Text),
    Column("result_name", Text),
    Column("result_size", BigInteger),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_stage", Text),
    Column("error_retryable", Boolean),
    Column("created_at", _time, nullable=False, server_default=_now),
    Column("updated_at", _time, nullable=False, server_default=_now),
    Column("queued_at", _time),
    Column("started_at", _time),
    Column("completed_at", _time),
    # the engine's own: which step is next or running, who holds it and until when, and when to look again
    Column("step", Text),
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("losses", Integer, nullable=False, server_default=text("0")),
    Column("claim", Uuid),
    Column("claimed_by", Text),
    Column("claimed_at", _time),
    Column("lease_until", _time),
    Column("run_at", _time, nullable=False, server_default=_now),
    Column("republish_at", _time, nullable=False, server_default=_now),
    Column("published_at", _time),
    Column("publishes", SmallInteger, nullable=False, server_default=text("0")),
    Column("request_id", Text),  # of the request that ordered it, so that every log line it causes can be found
    Column("priority", SmallInteger, nullable=False, server_default=text("1")),  # 0 high, 1 normal, 2 low
    Column("lane", SmallInteger, nullable=False, server_default=text("0")),  # see storage.jobs.admission
    # counted towards its owner's limit; a queued job that is not admitted waits in Postgres, not in the broker
    Column("admitted", Boolean, nullable=False, server_default=text("false")),
    Column("awaiting", Boolean, nullable=False, server_default=text("false")),
    Column("deadline_at", _time),
    # held up by somebody else: since the step was first put off, or since the job began to wait; and for which circuit
    Column("delayed_since", _time),
    Column("circuit", Text),
    Column("signal", JSONB),
    Column("cancel_requested_at", _time),
    Column("event_seq", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("progress BETWEEN 0 AND 100", name="progress_is_percent"),
    CheckConstraint("priority BETWEEN 0 AND 2", name="priority_is_known"),
    CheckConstraint("lane BETWEEN 0 AND 9", name="lane_is_known"),
    CheckConstraint("admitted OR status <> 'processing'", name="processing_is_admitted"),
    CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="failed_has_error"),
    CheckConstraint(f"(status IN {_final}) = (completed_at IS NOT NULL)", name="final_has_time"),
    CheckConstraint("(status IN ('queued', 'processing')) = (step IS NOT NULL)", name="active_has_step"),
    CheckConstraint("status <> 'processing' OR stage IS NOT NULL", name="processing_has_stage"),
    CheckConstraint("(claim IS NULL) = (lease_until IS NULL)", name="claim_has_lease"),
    CheckConstraint("claim IS NULL OR (status = 'processing' AND NOT awaiting)", name="claim_is_processing"),
    CheckConstraint("NOT awaiting OR (status = 'processing' AND deadline_at IS NOT NULL)", name="waiting_has_deadline"),
    Index("ix_jobs_owner_id_id", "owner_id", text("id DESC")),
    Index("ix_jobs_input_file_id", "input_file_id"),
    Index("ix_jobs_parent_id", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
    # one partial index for each question the sweep asks
    Index(
        "ix_jobs_due",
        "republish_at",
        postgresql_where=text("claim IS NULL AND NOT awaiting AND admitted AND status IN ('queued', 'processing')"),
    ),
    Index("ix_jobs_leased", "lease_until", postgresql_where=text("claim IS NOT NULL")),
    Index("ix_jobs_awaiting", "deadline_at", postgresql_where=text("awaiting")),
    Index("ix_jobs_pending", "created_at", postgresql_where=text("status = 'pending'")),
    Index(
        "ix_jobs_cancelling",
        "cancel_requested_at",
        postgresql_where=text("cancel_requested_at IS NOT NULL AND status IN ('pending', 'queued', 'processing')"),
    ),
    # who is to be admitted next, and how many of an owner's run
    Index(
        "ix_jobs_backlog",
        "owner_id",
        "priority",
        "id",
        postgresql_where=text("status = 'queued' AND NOT admitted"),
    ),
    Index(
        "ix_jobs_running",
        "owner_id",
        postgresql_where=text("admitted AND status IN ('queued', 'processing')"),
    ),
    # what retention and the gauges ask of jobs that have ended
    Index("ix_jobs_completed_at", "completed_at", postgresql_where=text("completed_at IS NOT NULL")),
    Index(
        "ix_jobs_quarantined",
        "completed_at",
        postgresql_where=text("error_code IN ('worker_lost', 'step_timeout')"),
    ),
    Index("ix_jobs_circuit", "circuit", "claimed_at", postgresql_where=text("circuit IS NOT NULL")),
    # nearly every update of a job touches an indexed column; free space in the page keeps the new version close by
    postgresql_with={"fillfactor": "70"},
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("at", _time, nullable=False, server_default=_now),
    Column("data", JSONB, nullable=False),
    Column("owner_id", Uuid, nullable=False),  # the job's; no foreign key, the job has it
    # whose transaction it was: a stream of many jobs knows by it which events it has not seen (storage/events.py)
    Column("txid", TransactionId, nullable=False, server_default=text("pg_current_xact_id()")),
    CheckConstraint("seq > 0", name="seq_from_one"),
    Index("ix_job_events_owner_id_txid", "owner_id", "txid"),
    Index(
        "uq_job_events_terminal",
        "job_id",
        unique=True,
        postgresql_where=text(f"type IN {_final}"),
    ),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=True),
    Column("job_id", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("outcome", Text, nullable=False),  # done retrying postponed failed interrupted lost timed_out cancelled
    Column("worker", Text),
    Column("started_at", _time, nullable=False),
    Column("finished_at", _time, nullable=False, server_default=_now),
    Column("error_code", Text),
    Column("error_message", Text),
    Index("ix_job_attempts_job_id_id", "job_id", "id"),
)

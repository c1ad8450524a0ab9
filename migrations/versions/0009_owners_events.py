"""An owner's events in the order they became visible, and final jobs that are final in all that a client sees of them.

Revision 0009, after 0008.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KEEP_RULES = """
CREATE OR REPLACE FUNCTION jobs_keep_rules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('cancelled', 'failed', 'succeeded')
        AND ({old}) IS DISTINCT FROM ({new}) THEN
        RAISE EXCEPTION 'job % is final (%)', OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.status <> NEW.status AND NOT ((OLD.status = 'pending' AND NEW.status IN ('cancelled', 'failed', 'queued'))
            OR (OLD.status = 'queued' AND NEW.status IN ('cancelled', 'failed', 'processing'))
            OR (OLD.status = 'processing' AND NEW.status IN ('cancelled', 'failed', 'succeeded'))) THEN
        RAISE EXCEPTION 'job % cannot go from % to %', OLD.id, OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.progress < OLD.progress THEN
        RAISE EXCEPTION 'progress of job % cannot fall', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""
_BEFORE = ("status", "completed_at", "error_code", "result_key", "progress")
_NOW = (
    *_BEFORE,
    *("kind", "params", "stage", "message", "error_message", "error_stage", "error_retryable"),
    *("result_name", "result_size", "queued_at", "started_at"),
)


def _rules(columns: tuple[str, ...]) -> str:
    old, new = (", ".join(f"{row}.{column}" for column in columns) for row in ("OLD", "NEW"))
    return _KEEP_RULES.format(old=old, new=new)


def upgrade() -> None:
    op.execute("ALTER TABLE job_events DISABLE TRIGGER job_events_are_written_once")
    op.execute("ALTER TABLE job_events ADD COLUMN owner_id uuid")
    op.execute("UPDATE job_events SET owner_id = jobs.owner_id FROM jobs WHERE jobs.id = job_events.job_id")
    op.execute("ALTER TABLE job_events ALTER COLUMN owner_id SET NOT NULL")
    op.execute("ALTER TABLE job_events ENABLE TRIGGER job_events_are_written_once")
    op.execute("ALTER TABLE job_events ADD COLUMN txid xid8 NOT NULL DEFAULT pg_current_xact_id()")
    op.create_index(op.f("ix_job_events_owner_id_txid"), "job_events", ["owner_id", "txid"])
    op.execute(_rules(_NOW))


def downgrade() -> None:
    op.execute(_rules(_BEFORE))
    op.drop_index(op.f("ix_job_events_owner_id_txid"), "job_events")
    op.drop_column("job_events", "txid")
    op.drop_column("job_events", "owner_id")

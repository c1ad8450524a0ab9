"""The SQL of every move of a job: one statement changes the row, adds its event and records the attempt together.

A statement names the claim it acts under and changes nothing when that claim no longer stands, so a stale or doubled
delivery leaves without a trace. Every clock is the database's own. One statement in place of a transaction through the
ORM is what makes a hop cheap: 0.26 ms against 1.38 ms.
"""

from sqlalchemy import TextClause, text

from domain.pace import LEAST_SHARE, WATCHED_SECONDS

ERROR = """jsonb_build_object('code', moved.error_code, 'message', moved.error_message, 'stage', moved.error_stage,
    'retryable', moved.error_retryable)"""
SNAPSHOT = f"""jsonb_strip_nulls(jsonb_build_object(
    'status', moved.status, 'stage', moved.stage, 'progress', moved.progress, 'message', moved.message,
    'attempt', moved.attempt, 'error', CASE WHEN moved.status = 'failed' THEN {ERROR} END))"""

# Whether the end of this job lets another of its owner's begin.
BACKLOG = """(moved.completed_at IS NOT NULL AND moved.admitted AND EXISTS (
    SELECT FROM jobs WHERE jobs.owner_id = moved.owner_id AND jobs.status = 'queued' AND NOT jobs.admitted))"""


# With each move another stage begins, or the same one anew: what was known of its pace is over.
NO_PACE = "pace_share = NULL, pace_since = NULL, eta_at = NULL"
# Seconds until the stage is likely over; not known (any more) once that moment has passed.
ETA_SECONDS = (
    """CASE WHEN jobs.eta_at > now() THEN CAST(ceil(extract(epoch FROM jobs.eta_at - now())) AS integer) END"""
)


def move(
    sets: str,
    where: str,
    event: str,
    *,
    outcome: str | None = None,
    error: str = "NULL, NULL",
    attempt: str = ":step, :attempt, :worker, CAST(:started_at AS timestamptz)",
) -> TextClause:
    """One statement: update the jobs matched by ``where``, add the event, and record the attempt with ``outcome``.

    ``event``, ``outcome``, ``error`` (code, message) and ``attempt`` (step, number, worker, start) are SQL expressions
    over ``moved``, the updated rows.
    """
    record = f"""attempt_row AS (
        INSERT INTO job_attempts (job_id, outcome, step, attempt, worker, started_at, error_code, error_message)
        SELECT id, {outcome}, {attempt}, {error} FROM moved),"""
    return text(f"""
        WITH moved AS (
            UPDATE jobs SET {sets}, {NO_PACE}, event_seq = event_seq + 1, updated_at = now() WHERE {where}
            RETURNING *),
        {record if outcome else ""}
        event AS (
            INSERT INTO job_events (job_id, seq, type, data, owner_id)
            SELECT id, event_seq, {event}, {SNAPSHOT}, owner_id FROM moved
            RETURNING job_id, seq, type, at, data)
        SELECT moved.id, moved.owner_id, moved.kind, moved.step, moved.lane, moved.claim IS NOT NULL AS held,
               moved.signal, {BACKLOG} AS backlog,
               moved.result_key, moved.result_name, moved.result_size, event.seq, event.type, event.at, event.data
        FROM moved JOIN event ON event.job_id = moved.id""")


# The step as well: a worker that goes straight on keeps its claim, and no step is to be ended twice under it.
HELD = "id = :id AND claim = :claim AND step = :step"
LET_GO = "claim = NULL, lease_until = NULL"
# The wall clock: now() stands still at the start of a transaction, and its effects may take longer than a lease.
LEASED = "lease_until = clock_timestamp() + make_interval(secs => :lease)"
# Set when a message is about to be sent; should it get lost, the sweep sends another after :republish seconds.
PUBLISHED = "published_at = now(), publishes = 1, republish_at = now() + make_interval(secs => :republish)"
# Free to be claimed, and to be published by the next sweep: before all that has not been begun.
REQUEUED = "run_at = now(), republish_at = now(), publishes = 0, lane = 0"
CLOSED = f"{LET_GO}, step = NULL, awaiting = FALSE, circuit = NULL, completed_at = now()"
RESULT = """result_key = COALESCE(:result_key, result_key), result_name = COALESCE(:result_name, result_name),
    result_size = COALESCE(:result_size, result_size)"""

CLAIM = text(f"""
    WITH moved AS (
        UPDATE jobs SET status = 'processing', stage = step, message = NULL, claim = :claim, claimed_by = :worker,
            claimed_at = now(), circuit = NULL, {NO_PACE},
            {LEASED}, started_at = COALESCE(started_at, now()), event_seq = event_seq + 1, updated_at = now()
        WHERE id = :id AND step = :step AND status IN ('queued', 'processing') AND NOT awaiting AND claim IS NULL
            AND admitted AND run_at <= now() AND cancel_requested_at IS NULL
        RETURNING *),
    event AS (
        INSERT INTO job_events (job_id, seq, type, data, owner_id)
        SELECT id, event_seq, 'stage', {SNAPSHOT}, owner_id FROM moved
        RETURNING job_id, seq, type, at, data)
    SELECT moved.id, moved.owner_id, moved.kind, moved.step, moved.attempt, moved.params,
           moved.signal, moved.request_id,
           moved.result_key, moved.result_name, moved.result_size, moved.claimed_at, moved.delayed_since,
           event.seq, event.type, event.at, event.data,
           files.object_key, files.name, files.size, files.content_type, files.kind AS file_kind, files.local_headers
    FROM moved JOIN event ON event.job_id = moved.id LEFT JOIN files ON files.id = moved.input_file_id""")

ADVANCE = move(
    f"step = :next, stage = :next, attempt = 1, losses = 0, claimed_at = now(), {LEASED}, {RESULT}, "
    "progress = GREATEST(progress, :until), message = :message, delayed_since = NULL",
    f"{HELD} AND cancel_requested_at IS NULL",
    "'stage'",
    outcome="'done'",
)
HAND_OVER = move(
    f"step = :next, attempt = 1, losses = 0, {LET_GO}, {RESULT}, run_at = now(), "
    f"{PUBLISHED}, progress = GREATEST(progress, :until), message = :message, delayed_since = NULL",
    f"{HELD} AND cancel_requested_at IS NULL",
    "'handed_over'",
    outcome="'done'",
)
# The signal may have come before the step that caused it was over: then there is nothing to wait for.
WAIT = move(
    "step = :next, attempt = 1, losses = 0, awaiting = signal IS NULL, "
    "stage = CASE WHEN signal IS NULL THEN 'waiting' ELSE :next END, "
    "claim = CASE WHEN signal IS NULL THEN NULL ELSE claim END, claimed_at = now(), "
    "lease_until = CASE WHEN signal IS NOT NULL THEN clock_timestamp() + make_interval(secs => :lease) END, "
    "deadline_at = now() + make_interval(secs => :seconds), message = :message, "
    "delayed_since = CASE WHEN signal IS NOT NULL THEN NULL WHEN :again THEN delayed_since ELSE now() END",
    f"{HELD} AND cancel_requested_at IS NULL",
    "CASE WHEN moved.awaiting THEN 'waiting' ELSE 'stage' END",
    outcome="'done'",
)
# Put off for a reason that is not the job's. If the signal has come meanwhile, there is nothing to put off.
POSTPONE = move(
    f"{LET_GO}, delayed_since = COALESCE(delayed_since, now()), message = :message, publishes = 0, "
    "run_at = now() + CASE WHEN signal IS NULL THEN make_interval(secs => :seconds) ELSE make_interval() END, "
    "republish_at = now() + CASE WHEN signal IS NULL THEN make_interval(secs => :seconds) ELSE make_interval() END, "
    "circuit = CASE WHEN signal IS NULL THEN CAST(:circuit AS text) END",
    f"{HELD} AND cancel_requested_at IS NULL",
    "'postponed'",
    outcome="'postponed'",
    error=":error_code, :error_message",
)
SUCCEED = move(
    f"status = 'succeeded', {CLOSED}, {RESULT}, progress = 100, message = COALESCE(:message, message)",
    f"{HELD} AND cancel_requested_at IS NULL",
    "'succeeded'",
    outcome="'done'",
)
RETRY = move(
    f"attempt = attempt + 1, {LET_GO}, run_at = now() + make_interval(secs => :delay), "
    "republish_at = now() + make_interval(secs => :delay), publishes = 0, message = :error_message",
    f"{HELD} AND cancel_requested_at IS NULL",
    "'retrying'",
    outcome="'retrying'",
    error=":error_code, :error_message",
)
# A step may be come to again: only the attempts since the last first one belong together.
FAILING_FOR = text(
    "SELECT EXTRACT(EPOCH FROM now() - started_at) FROM job_attempts "
    "WHERE job_id = :job_id AND step = :step AND attempt = 1 ORDER BY id DESC LIMIT 1"
)
# A step that waits for a signal does not fail when that has come meanwhile: what was told is what counts.
FAIL = move(
    f"status = 'failed', {CLOSED}, error_code = :error_code, error_message = :error_message, error_stage = stage, "
    "error_retryable = :retryable, message = :error_message",
    f"{HELD} AND (NOT :unless_signalled OR signal IS NULL)",
    "'failed'",
    outcome="'failed'",
    error=":error_code, :error_message",
)
# The step ran longer than it may; the process that runs it ends itself after this.
OVERRUN = move(
    f"{LET_GO}, {REQUEUED}, losses = losses + 1",
    f"{HELD} AND losses + 1 < :losses",
    "'interrupted'",
    outcome="'timed_out'",
)
OVERRUN_FOR_GOOD = move(
    f"status = 'failed', {CLOSED}, losses = losses + 1, error_code = :error_code, error_message = :error_message, "
    "error_stage = stage, error_retryable = :retryable, message = :error_message",
    HELD,
    "'failed'",
    outcome="'timed_out'",
    error=":error_code, :error_message",
)
INTERRUPT = move(f"{LET_GO}, {REQUEUED}", HELD, "'interrupted'", outcome="'interrupted'")
CANCEL = move(
    f"status = 'cancelled', {CLOSED}, message = NULL",
    f"{HELD} AND cancel_requested_at IS NOT NULL",
    "'cancelled'",
    outcome="'cancelled'",
)
# A job can be told what it waits for from the moment the step that causes it has begun: while the step runs, while it
# waits for a worker again because its own died or its answer was lost, while the job waits, and while it goes and asks.
_WAITS = "status = 'processing' AND (awaiting OR (step = :waits AND stage = :waits) OR step = CAST(:asks AS text))"
_BEGUN = f"id = :id AND signal IS NULL AND {_WAITS}"
SIGNAL = move(
    "signal = CAST(:signal AS jsonb), awaiting = FALSE, circuit = NULL, run_at = now(), "
    "delayed_since = CASE WHEN awaiting THEN NULL ELSE delayed_since END, "
    f"{PUBLISHED}, {RESULT}, progress = GREATEST(progress, :until), "
    "message = NULL",
    _BEGUN,
    "'resumed'",
)
# Fails the job in the same moments.
FAIL_SIGNALLED = move(
    f"status = 'failed', {CLOSED}, error_code = :error_code, error_message = :error_message, error_stage = stage, "
    "error_retryable = :retryable, message = :error_message, signal = CAST(:signal AS jsonb)",
    _BEGUN,
    "'failed'",
)
HEARTBEAT = text(f"""
    UPDATE jobs SET {LEASED} WHERE claim = ANY(:claims)
    RETURNING claim, cancel_requested_at IS NOT NULL AS cancelled""")
PROGRESS = text("""
    UPDATE jobs SET progress = GREATEST(progress, :progress), message = COALESCE(:message, message), updated_at = now(),
        eta_at = now() + make_interval(secs => :left)
    WHERE id = :id AND claim = :claim RETURNING progress""")
# Reports that follow another one more closely than this are stored, and not announced.
_CLOSE = "updated_at > now() - interval '0.1 s'"
_GOES_ON = "pace_share <= CAST(:share AS double precision)"  # not when there is no pace yet
_IS_KNOWN = f"""(:share - pace_share >= {LEAST_SHARE}
            AND extract(epoch FROM now() - pace_since) >= {WATCHED_SECONDS})"""
# While a job waits, how far the other side is: spread over the part of the bar that the waiting has. And when it will
# likely be over: the rule of domain.pace.
REMOTE_PROGRESS = text(f"""
    UPDATE jobs SET progress = GREATEST(progress, :progress), message = COALESCE(:message, message),
        updated_at = CASE WHEN {_CLOSE} THEN updated_at ELSE now() END,
        pace_share = CASE WHEN {_GOES_ON} THEN pace_share ELSE :share END,
        pace_since = CASE WHEN {_GOES_ON} THEN pace_since ELSE now() END,
        eta_at = CASE WHEN {_IS_KNOWN}
            THEN now() + (now() - pace_since) * ((1 - :share) / (:share - pace_share)) END
    WHERE id = :id AND {_WAITS}
    RETURNING owner_id, stage, progress, message, updated_at, updated_at = now() AS due,
              {ETA_SECONDS} AS eta_seconds""")

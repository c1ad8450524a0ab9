"""Recordings put together with their calls: by the rule, and by hand.

One transaction at a time does it, in all processes: which pair is the nearest depends on all that are there. Should
that ever fail, an index keeps a call from a second recording by the rule, and a recording has but one place for a call.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from domain.errors.requests import NotFound
from domain.recordings.matching import Linked, Pair, nearest
from storage.configuration import settings

LOCK = 5_190_734_411  # any number, as long as it is always this one and nobody else's
BATCH = 500  # recordings that are tried in a transaction

_hold = text("SELECT pg_advisory_xact_lock(:lock)")
# What a person has taken off its call (`hand`, and no call) is left alone.
_WAITS = "{0}.status = 'unmatched' AND {0}.matched_by IS NULL AND {0}.started_at IS NOT NULL".format
_FREE = "NOT EXISTS (SELECT FROM recordings AS taken WHERE taken.call_id = calls.id)"
_WINDOW = "make_interval(secs => :window)"
# Found by the time: it is the few of ten minutes. By the number (`@>`, which the index of names knows) it would be all
# that ever came in by a line. OFFSET 0: joined freely, the planner may hold it cheaper to read one side whole.
_SAME = "{0}.from_number = ANY({1}.from_names) AND {0}.to_number = ANY({1}.to_names)".format
# Of the call or of the talk: a recording may begin with either, and minutes of queue may lie between them.
_NEAR = f"{{0}} BETWEEN {{1}} - {_WINDOW} AND {{1}} + {_WINDOW}".format


def _calls_of(recording: str) -> str:
    """A lateral subquery: the calls that a recording may be of."""
    times = f"{_NEAR('began_at', f'{recording}.started_at')} OR {_NEAR('answered_at', f'{recording}.started_at')}"
    return f"LATERAL (SELECT * FROM calls WHERE ({times}) AND {_SAME(recording, 'calls')} OFFSET 0)"


def _recordings_of(call: str) -> str:
    """A lateral subquery: the recordings that wait and may be of a call."""
    times = f"{_NEAR('started_at', f'{call}.began_at')} OR {_NEAR('started_at', f'{call}.answered_at')}"
    return f"""LATERAL (SELECT * FROM recordings WHERE {_WAITS("recordings")}
        AND ({times}) AND {_SAME("recordings", call)} OFFSET 0)"""


# Whoever else could be of one of these calls is asked as well: a call belongs to the nearest, whoever came first.
_pairs = text(f"""
    WITH near AS MATERIALIZED (
        SELECT DISTINCT ON (calls.id) calls.* FROM recordings AS asked CROSS JOIN {_calls_of("asked")} AS calls
        WHERE asked.id = ANY(:ids) AND {_WAITS("asked")} AND {_FREE}),
    rivals AS MATERIALIZED (
        SELECT DISTINCT ON (rival.id) rival.* FROM near CROSS JOIN {_recordings_of("near")} AS rival)
    SELECT rivals.id AS recording_id, calls.id AS call_id, calls.id IN (SELECT id FROM near) AS near,
        LEAST(abs(extract(epoch FROM calls.began_at - rivals.started_at)),
            abs(extract(epoch FROM calls.answered_at - rivals.started_at)))::float AS seconds
    FROM rivals CROSS JOIN {_calls_of("rivals")} AS calls WHERE {_FREE}""")
_match = text(f"""
    UPDATE recordings SET status = 'matched', matched_by = 'rule', matched_at = now(), call_id = made.call_id
    FROM unnest(CAST(:recordings AS uuid[]), CAST(:calls AS uuid[])) AS made (id, call_id)
    WHERE recordings.id = made.id AND {_WAITS("recordings")} RETURNING recordings.id""")
_tried = text("UPDATE recordings SET match_tried_at = clock_timestamp() WHERE id = ANY(:ids)")
_due = text(f"""
    SELECT id FROM recordings
    WHERE {_WAITS("recordings")} AND created_at > now() - make_interval(days => :days)
        AND (match_tried_at IS NULL OR match_tried_at < now() - make_interval(secs => :age))
    ORDER BY match_tried_at NULLS FIRST LIMIT {BATCH}""")
_around = text(f"""
    SELECT recording.id FROM calls CROSS JOIN {_recordings_of("calls")} AS recording
    WHERE calls.id = ANY(:ids) LIMIT {BATCH}""")
_link = text("""
    UPDATE recordings SET status = CASE WHEN CAST(:call_id AS uuid) IS NULL THEN 'unmatched' ELSE 'matched' END,
        call_id = :call_id, matched_by = 'hand', matched_at = CASE WHEN CAST(:call_id AS uuid) IS NULL THEN NULL
            ELSE now() END
    WHERE id = :id RETURNING id""")
_visible = text("""
    SELECT FROM recordings WHERE id = :id AND (CAST(:owner_id AS uuid) IS NULL OR owner_id = :owner_id)""")


def match_new(connection: Connection, recording_ids: Sequence[UUID]) -> int:
    """Look for the calls of these recordings, in the caller's transaction; the number of them that were matched.

    Those that are matched already, or have been taken off by hand, stay as they are. Others that compete with them for
    a call may be matched on the way.
    """
    if not recording_ids:
        return 0
    ids = list(recording_ids)
    connection.execute(_hold, {"lock": LOCK})
    rows = connection.execute(_pairs, {"ids": ids, "window": settings().recording_match_seconds}).all()
    near = {row.call_id for row in rows if row.near}
    made = nearest(Pair(recording_id=row.recording_id, call_id=row.call_id, seconds=row.seconds) for row in rows)
    # of the other calls not everybody who could be of them was asked
    made = [pair for pair in made if pair.call_id in near]
    values = {"recordings": [one.recording_id for one in made], "calls": [one.call_id for one in made]}
    matched = set(connection.execute(_match, values).scalars()) if made else set()
    connection.execute(_tried, {"ids": ids})
    return len(matched.intersection(ids))


def around(connection: Connection, call_ids: Sequence[UUID]) -> list[UUID]:
    """The unmatched recordings that may be of these calls."""
    values = {"ids": list(call_ids), "window": settings().recording_match_seconds}
    return list(connection.execute(_around, values).scalars())


def due(connection: Connection, days: float, age: float) -> list[UUID]:
    """Unmatched recordings of the last ``days`` that were not tried for ``age`` seconds, the longest untried first."""
    return list(connection.execute(_due, {"days": days, "age": age}).scalars())


def link(connection: Connection, recording_id: UUID, call_id: UUID | None, *, owner_id: UUID | None) -> Linked:
    """What a person says; ``owner_id`` None is an admin. The call has been looked up. Raises NotFound."""
    connection.execute(_hold, {"lock": LOCK})
    if connection.execute(_visible, {"id": recording_id, "owner_id": owner_id}).first() is None:
        raise NotFound(what="recording")
    connection.execute(_link, {"id": recording_id, "call_id": call_id})
    return Linked(recording_id=recording_id, call_id=call_id)

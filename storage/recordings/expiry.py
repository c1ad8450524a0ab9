"""Calls and what the exchange delivered of them, removed when they have been kept for their time; and the numbers of
messages, added up.
"""

from sqlalchemy import Connection, text

# A call with a recording stays as long as that. Skipped when locked: it is being written, or matched.
_calls = text("""
    DELETE FROM calls WHERE id IN (
        SELECT id FROM calls WHERE created_at < now() - make_interval(secs => :seconds)
            AND NOT EXISTS (SELECT FROM recordings WHERE recordings.call_id = calls.id)
        ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")
# All of a call or none of it: of a part, the next delivery would make another call than it was. What waits to be
# applied stays.
_deliveries = text("""
    DELETE FROM mango_deliveries WHERE id IN (
        SELECT id FROM mango_deliveries AS old
        WHERE received_at < now() - make_interval(secs => :seconds) AND (applied_at IS NOT NULL OR error IS NOT NULL)
            AND NOT EXISTS (SELECT FROM mango_deliveries AS younger WHERE younger.entry_id = old.entry_id
                AND younger.received_at >= now() - make_interval(secs => :seconds))
        ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")
_add_up = text("""
    WITH changes AS (
        DELETE FROM mail_message_counts WHERE id IN (
            SELECT id FROM mail_message_counts ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING mailbox_id, state, number)
    INSERT INTO mail_message_counts (mailbox_id, state, number)
    SELECT mailbox_id, state, sum(number) FROM changes GROUP BY mailbox_id, state HAVING sum(number) <> 0""")


def remove_calls(connection: Connection, seconds: float, limit: int) -> int:
    """Remove at most ``limit`` calls without recordings that came up longer ago than that; their number."""
    return connection.execute(_calls, {"seconds": seconds, "limit": limit}).rowcount


def remove_deliveries(connection: Connection, seconds: float, limit: int) -> int:
    """The same of deliveries, those of a call together once its last one is so old."""
    return connection.execute(_deliveries, {"seconds": seconds, "limit": limit}).rowcount


def add_up(connection: Connection, limit: int) -> None:
    """Make few rows of many in the numbers of messages; two at once share the work."""
    connection.execute(_add_up, {"limit": limit})

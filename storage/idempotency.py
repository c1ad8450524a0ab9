"""Idempotency keys: who works on a key, and the answer its first request was given.

A request claims its key before it does anything, and writes its answer in the transaction of its effect. So a key is
either answered, and then the effect is there, or not, and then nothing is: whatever dies in between, and whenever.
"""

from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from domain.errors.requests import IdempotencyInFlight
from storage.database import autocommit, metadata

NOBODY = UUID(int=0)  # owns the keys of requests without an account, such as registrations

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    # no foreign key: rows live for a day, and checking it would cost every claim a lookup
    Column("owner_id", Uuid, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("claim", Uuid, nullable=False),  # whose it is: only the request that knows it may answer
    Column("locked_until", DateTime(timezone=True)),  # by the database's clock; then another request may claim it
    Column("fingerprint", LargeBinary),  # of the body that was answered
    Column("status_code", SmallInteger),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("state IN ('in_flight', 'done')", name="state"),
    CheckConstraint("(state = 'in_flight') = (locked_until IS NOT NULL)", name="locked"),
    CheckConstraint(
        "(state = 'done') = (num_nonnulls(fingerprint, status_code, headers, body) = 4)",
        name="answered",
    ),
)
Index("ix_idempotency_keys_expires_at", idempotency_keys.c.expires_at)

_THIS = "owner_id = :owner_id AND route = :route AND key = :key"
_MINE = f"{_THIS} AND claim = :claim AND state = 'in_flight'"

# clock_timestamp() and not now(): the statement may first have to wait for the request that is answering the key just
# now. When that has committed, the conditions are checked on what it wrote.
# Reading in the same statement sees the table as it was at its start: a row somebody inserts meanwhile stops the claim
# and is not seen, so the answer can be no row at all.
# No waiting for the disk (set_config is for this one transaction): a claim that a crash of the server loses cannot be
# answered any more, so nothing is committed under it.
_claim = text(f"""
    WITH claimed AS (
        INSERT INTO idempotency_keys AS known (owner_id, route, key, state, claim, locked_until, expires_at)
        VALUES (:owner_id, :route, :key, 'in_flight', :claim,
                now() + make_interval(secs => :lease), now() + make_interval(secs => :keep))
        ON CONFLICT (owner_id, route, key) DO UPDATE SET
            state = 'in_flight', claim = excluded.claim, fingerprint = NULL, status_code = NULL, headers = NULL,
            body = NULL, created_at = clock_timestamp(),
            locked_until = clock_timestamp() + make_interval(secs => :lease),
            expires_at = clock_timestamp() + make_interval(secs => :keep)
        WHERE CASE known.state WHEN 'done' THEN known.expires_at ELSE known.locked_until END <= clock_timestamp()
        RETURNING set_config('synchronous_commit', 'off', TRUE))
    SELECT TRUE AS mine, NULL AS state, NULL::float AS seconds,
        NULL::bytea AS fingerprint, NULL::smallint AS status_code, NULL::jsonb AS headers, NULL::bytea AS body
    FROM claimed
    UNION ALL
    SELECT FALSE, state, extract(epoch FROM locked_until - now()), fingerprint, status_code, headers, body
    FROM idempotency_keys WHERE {_THIS} AND (state = 'in_flight' OR expires_at > now())
        AND NOT EXISTS (SELECT FROM claimed)""")
_extend = text(f"""
    UPDATE idempotency_keys SET locked_until = now() + make_interval(secs => :lease) WHERE {_MINE}""")
_finish = text(f"""
    UPDATE idempotency_keys SET state = 'done', locked_until = NULL, fingerprint = :fingerprint,
        status_code = :status_code, headers = CAST(:headers AS jsonb), body = :body,
        expires_at = now() + make_interval(secs => :keep)
    WHERE {_MINE}""")
_release = text(f"DELETE FROM idempotency_keys WHERE {_MINE}")
_remove_expired = text("""
    DELETE FROM idempotency_keys WHERE (owner_id, route, key) IN (
        SELECT owner_id, route, key FROM idempotency_keys
        WHERE expires_at <= now() AND (locked_until IS NULL OR locked_until <= now())
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """The same word of another owner, or sent to another route, is another key."""

    owner_id: UUID
    route: str  # method and path
    key: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to answer a key, until its lease runs out and another request takes the key over."""

    key: Key
    id: UUID


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the first request was answered, and the fingerprint of its body (SHA-256)."""

    fingerprint: bytes
    status_code: int
    headers: dict[str, str]
    body: bytes


def claim(key: Key, lease: float, keep: float) -> Claim | Answer:
    """The claim, held for ``lease`` seconds, or the answer the key has already. One statement.

    Raises:
        IdempotencyInFlight: another request holds it; ``retry_after`` is what is left of its lease.
    """
    mine = Claim(key=key, id=uuid4())
    with autocommit() as connection:
        row = connection.execute(_claim, {**_values(mine), "lease": lease, "keep": keep}).one_or_none()
    if row is None:
        raise IdempotencyInFlight(retry_after=1)
    if row.mine:
        return mine
    if row.state == "in_flight":
        raise IdempotencyInFlight(retry_after=max(1.0, row.seconds))
    return Answer(
        fingerprint=bytes(row.fingerprint), status_code=row.status_code, headers=row.headers, body=bytes(row.body)
    )


def extend(mine: Claim, lease: float) -> bool:
    """Hold the claim for ``lease`` seconds from now; False when it is another's by now."""
    with autocommit() as connection:
        return connection.execute(_extend, {**_values(mine), "lease": lease}).rowcount == 1


def finish(connection: Connection, mine: Claim, answer: Answer, keep: float) -> None:
    """Write the answer, to be kept for ``keep`` seconds, as a part of the transaction of what it tells of.

    A lease that has run out does no harm as long as nobody else has claimed the key.

    Raises:
        IdempotencyInFlight: another request has taken the key over; the transaction must not be committed.
    """
    values = {
        "fingerprint": answer.fingerprint,
        "status_code": answer.status_code,
        "headers": msgspec.json.encode(answer.headers).decode(),
        "body": answer.body,
        "keep": keep,
    }
    if connection.execute(_finish, _values(mine) | values).rowcount != 1:
        raise IdempotencyInFlight(retry_after=1)


def release(mine: Claim) -> None:
    """Let the key go unanswered: the next request with it begins anew. Nothing happens when it is answered."""
    with autocommit() as connection:
        connection.execute(_release, _values(mine))


def remove_expired(connection: Connection, limit: int) -> int:
    """Delete at most ``limit`` keys whose time is over; how many it were. Safe to run twice at once."""
    return connection.execute(_remove_expired, {"limit": limit}).rowcount


def _values(mine: Claim) -> dict[str, Any]:
    return {"owner_id": mine.key.owner_id, "route": mine.key.route, "key": mine.key.key, "claim": mine.id}

"""Jobs in a real database, made and looked at as the tests of the engine need them."""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from domain.identity import new_id
from domain.jobs import Event
from storage.database import autocommit
from storage.events import replay
from storage.jobs import transitions
from storage.jobs.transitions import Claim

PARAMS = {"profile": "default", "threshold": 0.5}


def account() -> UUID:
    """Somebody to own things, whom nobody can log in as."""
    owner = new_id()
    with autocommit() as connection:
        connection.execute(
            text("INSERT INTO accounts (id, username, password_hash) VALUES (:id, :name, 'x')"),
            {"id": owner, "name": f"u{owner}"},
        )
    return owner


def pending(kind: str = "inference") -> UUID:
    """A job without its file."""
    return _made(kind, "inspect", has_file=False)


def queued(kind: str = "inference", step: str = "inspect") -> UUID:
    """A job whose first step is ``step`` and that no worker has seen."""
    return _made(kind, step, has_file=True)


def claimed(kind: str = "inference", step: str = "inspect", lease: float = 60, worker: str = "w1") -> Claim:
    """A job of which a worker holds ``step``."""
    return claim(queued(kind, step), step, lease, worker)


def claim(job_id: UUID, step: str = "inspect", lease: float = 60, worker: str = "w1") -> Claim:
    with autocommit() as connection:
        found = transitions.claim(connection, job_id, step, worker, lease)
    assert found is not None
    return found[0]


def change(job_id: UUID, sets: str) -> None:
    """Lay a hand on the row, past the engine."""
    with autocommit() as connection:
        connection.execute(text(f"UPDATE jobs SET {sets} WHERE id = :id"), {"id": job_id})


def row(job_id: UUID) -> dict[str, Any]:
    with autocommit() as connection:
        return dict(connection.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job_id}).mappings().one())


def record(job_id: UUID) -> list[Event]:
    """The job's events, checked to be numbered from 1 without a gap, like the row says."""
    with autocommit() as connection:
        events = replay(connection, job_id, 0)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert row(job_id)["event_seq"] == len(events)
    return events


def types(job_id: UUID) -> list[str]:
    return [str(event.type) for event in record(job_id)]


def attempts(job_id: UUID) -> list[tuple[str, int, str, str]]:
    """(step, attempt, outcome, worker) of what was tried, in order."""
    with autocommit() as connection:
        rows = connection.execute(
            text("SELECT step, attempt, outcome, worker FROM job_attempts WHERE job_id = :id ORDER BY id"),
            {"id": job_id},
        )
        return [(row.step, row.attempt, row.outcome, row.worker) for row in rows]


def clear() -> None:
    with autocommit() as connection:
        connection.execute(text("DELETE FROM jobs"))


def _made(kind: str, step: str, *, has_file: bool) -> UUID:
    owner, file = account(), new_id()
    with autocommit() as connection:
        if has_file:
            connection.execute(
                text("""INSERT INTO files (id, owner_id, filename, object_key, name, size, content_type, sha256, kind)
                        VALUES (:id, :owner, :key, :key, 'a.txt', 3, 'text/plain', 'x', 'single')"""),
                {"id": file, "owner": owner, "key": f"inputs/{file}"},
            )
        job_id = new_id()
        connection.execute(
            text("""
                WITH job AS (
                    INSERT INTO jobs (id, owner_id, kind, title, params, input_file_id, status, step, queued_at,
                                      republish_at, admitted, published_at, publishes, event_seq)
                    VALUES (:id, :owner, :kind, 'a.txt', CAST(:params AS jsonb), :file, CAST(:status AS job_status),
                            :step, now(), now() + interval '30 s', TRUE, now(), 1, 1)
                    RETURNING id, owner_id)
                INSERT INTO job_events (job_id, seq, type, data, owner_id)
                SELECT id, 1, :event, '{}', owner_id FROM job"""),
            {
                "id": job_id,
                "owner": owner,
                "kind": kind,
                "params": msgspec.json.encode(PARAMS).decode(),
                "file": file if has_file else None,
                "status": "queued" if has_file else "pending",
                "step": step if has_file else None,
                "event": "queued" if has_file else "created",
            },
        )
        return job_id

"""The database itself keeps the rules of a job, whatever the code does."""

from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import exc, text

from domain.identity import new_id
from domain.jobs import FINAL, TRANSITIONS, Status
from migrations.__main__ import upgrade
from stack.up import Stack
from storage.database import autocommit
from tests import job_rows

# What a row needs beside its status, so that of all rules only the one about the move can refuse it.
NEEDS = {
    Status.PENDING: "step = NULL, completed_at = NULL, error_code = NULL",
    Status.QUEUED: "step = 'inspect', completed_at = NULL, error_code = NULL",
    Status.PROCESSING: "step = 'inspect', stage = 'inspect', completed_at = NULL, error_code = NULL",
    Status.SUCCEEDED: "step = NULL, completed_at = now(), error_code = NULL",
    Status.FAILED: "step = NULL, completed_at = now(), error_code = 'step_failed'",
    Status.CANCELLED: "step = NULL, completed_at = now(), error_code = NULL",
}
WAYS = {
    Status.PENDING: (),
    Status.QUEUED: (Status.QUEUED,),
    Status.PROCESSING: (Status.QUEUED, Status.PROCESSING),
    Status.SUCCEEDED: (Status.QUEUED, Status.PROCESSING, Status.SUCCEEDED),
    Status.FAILED: (Status.FAILED,),
    Status.CANCELLED: (Status.CANCELLED,),
}


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


def move(job_id: UUID, to: Status) -> None:
    job_rows.change(job_id, f"status = '{to}', {NEEDS[to]}")


def job_in(status: Status) -> UUID:
    job_id = job_rows.pending()
    for step in WAYS[status]:
        move(job_id, step)
    assert job_rows.row(job_id)["status"] == status
    return job_id


def refused(job_id: UUID, sets: str) -> str:
    """The reason the database gives for not doing it; the row stays as it was."""
    before = job_rows.row(job_id)
    with pytest.raises(exc.IntegrityError) as caught:
        job_rows.change(job_id, sets)
    assert job_rows.row(job_id) == before
    return str(caught.value.orig)


@pytest.mark.parametrize(("start", "end"), [pair for pair in product(Status, Status) if pair[0] != pair[1]], ids=str)
def test_the_database_allows_exactly_the_moves_of_the_table(start: Status, end: Status) -> None:
    job_id = job_in(start)
    if end in TRANSITIONS[start]:
        move(job_id, end)
        assert job_rows.row(job_id)["status"] == end
    else:
        assert (
            "cannot go from" in (reason := refused(job_id, f"status = '{end}', {NEEDS[end]}")) or "is final" in reason
        )


@pytest.mark.parametrize("status", sorted(FINAL))
@pytest.mark.parametrize(
    "sets", ["completed_at = now() + interval '1 s'", "error_code = 'other'", "result_key = 'other'", "progress = 99"]
)
def test_a_final_job_keeps_its_outcome(status: Status, sets: str) -> None:
    refused(job_in(status), sets)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_job_may_still_be_renamed(status: Status) -> None:
    job_id = job_in(status)
    job_rows.change(job_id, "title = 'new', description = 'new', updated_at = now()")
    assert job_rows.row(job_id)["title"] == "new"


def test_progress_cannot_fall() -> None:
    job_id = job_in(Status.PROCESSING)
    job_rows.change(job_id, "progress = 40")
    assert "cannot fall" in refused(job_id, "progress = 39")
    job_rows.change(job_id, "progress = 40")


@pytest.mark.parametrize(
    ("status", "sets", "rule"),
    [
        (Status.PROCESSING, "status = 'failed', step = NULL, completed_at = now()", "failed_has_error"),
        (Status.PROCESSING, "error_code = 'step_failed'", "failed_has_error"),
        (Status.PROCESSING, "status = 'succeeded', step = NULL", "final_has_time"),
        (Status.PROCESSING, "completed_at = now()", "final_has_time"),
        (Status.PROCESSING, "status = 'cancelled', completed_at = now()", "active_has_step"),
        (Status.PROCESSING, "step = NULL", "active_has_step"),
        (Status.PENDING, "step = 'inspect'", "active_has_step"),
        (Status.PROCESSING, "stage = NULL", "processing_has_stage"),
        (Status.PROCESSING, "claim = gen_random_uuid()", "claim_has_lease"),
        (Status.PROCESSING, "lease_until = now()", "claim_has_lease"),
        (Status.QUEUED, "claim = gen_random_uuid(), lease_until = now()", "claim_is_processing"),
        (Status.PROCESSING, "awaiting = TRUE", "waiting_has_deadline"),
        (Status.QUEUED, "awaiting = TRUE, deadline_at = now()", "waiting_has_deadline"),
        (
            Status.PROCESSING,
            "awaiting = TRUE, deadline_at = now(), claim = gen_random_uuid(), lease_until = now()",
            "claim_is_processing",
        ),
        (Status.PROCESSING, "progress = 101", "progress_is_percent"),
        (Status.PROCESSING, "progress = -1", "cannot fall"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(status: Status, sets: str, rule: str) -> None:
    assert rule in refused(job_in(status), sets)


def insert_event(job_id: UUID, seq: int, type: str) -> None:  # noqa: A002  # the column's name
    with autocommit() as connection:
        connection.execute(
            text("""INSERT INTO job_events (job_id, seq, type, data, owner_id)
                VALUES (:id, :seq, :type, '{}', '00000000-0000-0000-0000-000000000000')"""),
            {"id": job_id, "seq": seq, "type": type},
        )


@pytest.mark.parametrize("sets", ["data = '{}'", "seq = 7", "type = 'failed'", "at = now()"])
def test_an_event_is_never_changed(sets: str) -> None:
    job_id = job_rows.queued()
    before = job_rows.record(job_id)
    with pytest.raises(exc.IntegrityError, match="never changed"), autocommit() as connection:
        connection.execute(text(f"UPDATE job_events SET {sets} WHERE job_id = :id"), {"id": job_id})
    assert job_rows.record(job_id) == before


@pytest.mark.parametrize(("first", "second"), list(product(("succeeded", "failed", "cancelled"), repeat=2)))
def test_a_job_has_one_terminal_event(first: str, second: str) -> None:
    job_id = job_rows.queued()
    insert_event(job_id, 2, first)
    with pytest.raises(exc.IntegrityError, match="uq_job_events_terminal"):
        insert_event(job_id, 3, second)


@pytest.mark.parametrize(("seq", "rule"), [(0, "seq_from_one"), (-1, "seq_from_one"), (1, "pk_job_events")])
def test_events_are_numbered_from_one_and_once(seq: int, rule: str) -> None:
    with pytest.raises(exc.IntegrityError, match=rule):
        insert_event(job_rows.queued(), seq, "stage")


def test_an_event_belongs_to_a_job_and_goes_with_it() -> None:
    with pytest.raises(exc.IntegrityError, match="fk_job_events_job_id"):
        insert_event(new_id(), 1, "queued")
    job_id = job_rows.queued()
    job_rows.clear()
    with autocommit() as connection:
        count: Any = connection.execute(
            text("SELECT count(*) FROM job_events WHERE job_id = :id"), {"id": job_id}
        ).scalar_one()
    assert count == 0

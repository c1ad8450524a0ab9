"""The circuit breaker: one state for all processes, one probe at a time, nothing to pay while all is well."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from domain.identity import new_id
from migrations.__main__ import upgrade
from stack.up import ROOT, Stack
from storage import circuits as stored
from storage.circuits import Standing
from storage.database import autocommit, engine
from storage.jobs import sweep, transitions
from tests import job_rows
from workers import circuits
from workers.circuits import Circuit

SECONDS = 60.0  # longer than any test: it is over when a test says so


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    with autocommit() as connection:
        connection.execute(text("DELETE FROM circuits"))
    job_rows.clear()


@pytest.fixture(autouse=True)
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "FRESH_SECONDS", 0.0)


def process(failures: int = 3, seconds: float = SECONDS, probe_seconds: float = 30) -> Circuit:
    """The circuit as another process would know it."""
    return Circuit("ml", failures=failures, seconds=seconds, probe_seconds=probe_seconds)


def open_one(seconds: float = SECONDS) -> Circuit:
    one = process(failures=1, seconds=seconds)
    assert one.failed(new_id())
    return one


def over(column: str) -> None:
    """The time kept in this column has just run out."""
    with autocommit() as connection:
        connection.execute(text(f"UPDATE circuits SET {column} = now() - interval '1 ms'"))


def half_open() -> None:
    over("opened_until")


@contextmanager
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine(), "before_cursor_execute", note)


# ---------------------------------------------------------------- the state


def test_failures_in_a_row_open_it_whichever_process_meets_them() -> None:
    one, other = process(), process()
    assert [one.failed(new_id()), other.failed(new_id()), one.failed(new_id())] == [False, False, True]
    assert not other.admits(new_id())
    assert not one.admits(new_id())


def test_a_success_in_between_begins_the_row_anew() -> None:
    one, other = process(), process()
    for _ in range(3):
        one.failed(new_id())
        assert not other.failed(new_id())
        other.succeeded(new_id())
    assert one.admits(new_id())


def test_half_open_it_lets_one_probe_through() -> None:
    one, other = open_one(), process()
    half_open()
    probe = new_id()
    assert one.admits(probe)
    assert not other.admits(new_id())
    assert one.admits(probe), "a step done again after a crash is the same probe"
    other.succeeded(new_id())
    assert not other.admits(new_id()), "sent before it opened: what it says is old"
    one.succeeded(probe)
    assert other.admits(new_id())


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_four_times() -> None:
    one, spans = open_one(), []
    for _ in range(4):
        half_open()
        probe = new_id()
        assert one.admits(probe)
        assert one.failed(probe)
        with autocommit() as connection:
            spans.append(stored.read(connection, "ml").opened_for or 0)
    assert [round(span / SECONDS, 1) for span in spans] == pytest.approx([2, 4, 4, 4], abs=0.2)


def test_a_late_failure_of_another_keeps_it_open_no_longer() -> None:
    one = open_one()
    with autocommit() as connection:
        before = connection.execute(text("SELECT opened_until FROM circuits")).scalar_one()
    assert one.failed(new_id())
    with autocommit() as connection:
        assert connection.execute(text("SELECT opened_until FROM circuits")).scalar_one() == before


def test_what_the_service_asks_for_is_kept_to_within_reason() -> None:
    for asked, spans in ((100.0, 100.0), (3600.0, 4 * SECONDS), (0.0, SECONDS)):
        with autocommit() as connection:
            connection.execute(text("DELETE FROM circuits"))
        process(failures=1).failed(new_id(), retry_after=asked)
        with autocommit() as connection:
            assert stored.read(connection, "ml").opened_for == pytest.approx(spans, abs=20)


def test_a_probe_whose_worker_died_is_followed_by_another() -> None:
    one = open_one()
    half_open()
    assert one.admits(new_id())
    assert not one.admits(new_id())
    over("probe_until")
    assert one.admits(new_id())


# ---------------------------------------------------------------- what it costs, and two real processes


def test_a_healthy_service_costs_one_query_a_second_and_not_one_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "FRESH_SECONDS", 60.0)  # a second of which no busy machine makes two
    one = process()
    with statements() as seen:
        for _ in range(1000):
            job_id = new_id()
            assert one.admits(job_id)
            one.succeeded(job_id)
    assert len(seen) <= 1


ANOTHER = """
import sys
from uuid import UUID
from workers.circuits import Circuit
one = Circuit("ml", failures=3, seconds=30.0, probe_seconds=30.0)
for line in sys.stdin:
    word, job_id = line.split()
    print(getattr(one, word)(UUID(job_id)), flush=True)
"""


class Another:
    """A process of its own with the same circuit."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ANOTHER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def asked(self, word: str, job_id: UUID) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{word} {job_id}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if (said := line.strip()) in ("True", "False", "None"):
                return said  # all else is the log
        raise AssertionError("it has ended")


def test_two_processes_open_and_close_it_for_each_other(in_process: Stack) -> None:
    others = [Another(), Another()]
    try:
        failed = [others[number % 2].asked("failed", new_id()) for number in range(3)]
        assert failed == ["False", "False", "True"]
        time.sleep(1.1)  # as long as a process may keep what it knows
        assert [other.asked("admits", new_id()) for other in others] == ["False", "False"]
        with autocommit() as connection:
            connection.execute(text("UPDATE circuits SET opened_until = now()"))
        time.sleep(1.1)
        probes = [new_id(), new_id()]
        admitted = [other.asked("admits", probe) for other, probe in zip(others, probes, strict=True)]
        assert sorted(admitted) == ["False", "True"]
        first = admitted.index("True")
        others[first].asked("succeeded", probes[first])
        time.sleep(1.1)
        assert [other.asked("admits", new_id()) for other in others] == ["True", "True"]
    finally:
        for other in others:
            other.process.kill()
            other.process.communicate()


# ---------------------------------------------------------------- jobs that wait for it


def put_off(count: int) -> list[UUID]:
    jobs = []
    for _ in range(count):
        claim = job_rows.claimed(step="submit")
        with autocommit() as connection:
            moved = transitions.postpone(connection, claim, seconds=3600, message="waiting", circuit="ml")
        assert moved
        assert (moved.event.type, moved.held) == ("postponed", False)
        jobs.append(claim.job.id)
    return jobs


def due() -> set[UUID]:
    with autocommit() as connection:
        return {one.job_id for one in sweep.due(connection, 30)}


def wake() -> int:
    with autocommit() as connection:
        return stored.wake(connection, 30)


def test_a_job_that_is_put_off_keeps_its_attempt_and_is_not_touched_while_it_is_open() -> None:
    open_one(seconds=30)
    (job_id,) = put_off(1)
    assert wake() == 0
    assert due() == set()
    assert job_rows.types(job_id) == ["queued", "stage", "postponed"]
    assert job_rows.attempts(job_id) == [("submit", 1, "postponed", "w1")]
    row = job_rows.row(job_id)
    assert (row["attempt"], row["status"], row["stage"]) == (1, "processing", "submit")


def test_half_open_it_wakes_one_and_the_one_tried_longest_ago_first() -> None:
    one = open_one()
    first, second, third = put_off(3)
    half_open()
    assert wake() == 1
    assert wake() == 0, "the probe is on its way"
    assert due() == {first}
    assert not one.admits(new_id()), "it is reserved for that job"
    claim = job_rows.claim(first, "submit")
    assert claim.job.delayed > 0
    assert one.admits(first)
    one.failed(first)
    with autocommit() as connection:
        transitions.postpone(connection, claim, seconds=3600, message="waiting", circuit="ml")
        connection.execute(text("UPDATE circuits SET opened_until = now() - interval '1 ms'"))
    assert wake() == 1
    assert due() == {second}
    assert job_rows.row(third)["circuit"] == "ml"


def test_closed_again_it_wakes_all_of_them_a_few_at_first() -> None:
    one = open_one()
    jobs = put_off(40)
    half_open()
    probe = new_id()
    assert one.admits(probe)
    one.succeeded(probe)
    first = wake()
    assert 16 <= first <= 32
    for _ in range(20):
        if wake() == 0:
            break
    assert due() == set(jobs)


def test_a_circuit_nobody_knows_holds_nobody_up() -> None:
    jobs = put_off(2)
    assert wake() == 2
    assert due() == set(jobs)


def test_a_job_that_ends_while_it_waits_is_not_woken() -> None:
    open_one()
    (job_id,) = put_off(1)
    job_rows.change(job_id, "cancel_requested_at = now()")
    with autocommit() as connection:
        assert len(sweep.finish_cancelled(connection)) == 1
        connection.execute(text("DELETE FROM circuits"))
    assert wake() == 0


def test_a_signal_ends_the_waiting_for_the_circuit() -> None:
    open_one(seconds=30)
    (job_id,) = put_off(1)
    with autocommit() as connection:
        assert transitions.signal(
            connection, job_id, {"outcome": "succeeded"}, waits="submit", until=80, republish=30, result=None
        )
    assert job_rows.claim(job_id, "submit").job.signal == {"outcome": "succeeded"}


def test_a_job_whose_signal_has_come_is_not_put_off() -> None:
    open_one(seconds=30)
    claim = job_rows.claimed(step="submit")
    with autocommit() as connection:
        transitions.signal(connection, claim.job.id, {}, waits="submit", until=80, republish=30, result=None)
        assert transitions.postpone(connection, claim, seconds=3600, message="waiting", circuit="ml")
    assert due() == {claim.job.id}


def test_nothing_known_is_closed() -> None:
    with autocommit() as connection:
        assert stored.read(connection, "another") == Standing()

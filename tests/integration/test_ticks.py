"""Every slot of the schedule runs once: with two beats, with a beat that was away, with clocks that jump."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from celery.beat import Scheduler
from sqlalchemy import event, text

from migrations.__main__ import upgrade
from stack.up import ROOT, Stack
from storage import ticks
from storage.database import autocommit, engine, transaction
from workers import ticks as workers_ticks
from workers.ticks import Every, once_a_slot


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def no_ticks() -> None:
    with autocommit() as connection:
        connection.execute(text("DELETE FROM ticks"))


def take(name: str, seconds: float) -> bool:
    with autocommit() as connection:
        return ticks.take(connection, name, seconds)


def move(sets: str) -> None:
    with autocommit() as connection:
        connection.execute(text(f"UPDATE ticks SET {sets}"))


# ---------------------------------------------------------------- a slot is taken once


def test_a_slot_is_taken_once_however_many_try() -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take("t", 3600), range(40)))
    assert sum(taken) == 1
    assert take("another", 3600), "each tick has slots of its own"


def test_a_slot_somebody_holds_is_left_to_them_and_not_waited_for() -> None:
    assert take("t", 3600)
    move("slot = slot - interval '1 hour'")
    with transaction() as connection:
        connection.execute(text("SELECT FROM ticks FOR UPDATE"))
        began = time.monotonic()
        assert not take("t", 3600)
        assert take("another", 3600)
        assert time.monotonic() - began < 5, "a lock is waited for up to 15 s"
    assert take("t", 3600)


def test_an_hour_without_a_beat_is_one_run_and_not_many() -> None:
    assert take("t", 2)
    move("slot = slot - interval '1 hour'")
    assert [take("t", 3600 * 24 * 365) for _ in range(3)] == [False] * 3, "the slot of this year has begun before"
    move("slot = slot - interval '1 year'")
    assert [take("t", 3600 * 24 * 365) for _ in range(200)].count(True) == 1


def test_another_period_counts_on_from_there() -> None:
    assert take("t", 1)
    assert not take("t", 3600 * 24), "this day's slot began before the last one"
    move("slot = slot - interval '1 day'")
    assert take("t", 3600 * 24)
    move("slot = slot - interval '1 day'")
    assert take("t", 1)


def test_a_database_clock_that_is_set_back_does_not_stop_the_schedule() -> None:
    assert take("t", 60)
    move("slot = slot + interval '1 hour'")  # as if it had been an hour ahead
    assert [take("t", 60) for _ in range(3)] == [True, False, False]


def test_a_small_step_back_gives_no_slot_twice() -> None:
    assert take("t", 60)
    move("slot = slot + interval '60 s'")
    assert not take("t", 60)


def test_the_decision_costs_one_statement_and_no_clock_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def note(*call: Any) -> None:
        sent.append(call[3])

    ran: list[int] = []
    tick = once_a_slot("t", lambda: ran.append(1), 3600)
    tick()
    monkeypatch.setattr(time, "time", lambda: 4102444800.0)
    event.listen(engine(), "before_cursor_execute", note)
    try:
        tick()
    finally:
        event.remove(engine(), "before_cursor_execute", note)
    assert ran == [1]
    assert sent == [{"name": "t", "seconds": 3600}], "one statement, with nothing in it but the name and the period"


# ---------------------------------------------------------------- the beat's clock


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scheduler with one tick a second, what it has sent, and a hand on the machine's clock."""
    from workers.app import app

    class Recording(Scheduler):  # type: ignore[misc]
        sent = 0

        def apply_entry(self, entry: Any, producer: Any = None) -> None:
            self.sent += 1

    clock = [0.0]
    monkeypatch.setattr(workers_ticks.time, "monotonic", lambda: workers_ticks._started + clock[0])
    scheduler = Recording(app, lazy=True)
    scheduler.merge_inplace({"t": workers_ticks.entry("t", 2.0, "default")})

    def passed(seconds: float, clock_jumps: timedelta = timedelta(0)) -> int:
        monkeypatch.setattr(type(app), "now", lambda _: datetime.now(UTC) + clock_jumps)
        before = scheduler.sent
        until = clock[0] + seconds
        while clock[0] < until:
            while scheduler.tick() == 0:
                pass
            clock[0] += 0.1
        return scheduler.sent - before

    return passed


def test_a_beat_goes_on_at_its_pace_when_its_clock_is_set(beat: Any) -> None:
    assert beat(0.1) == 1, "the first at once"
    for jump in (timedelta(hours=-1), timedelta(hours=1), timedelta(days=-400), timedelta(0)):
        assert 9 <= beat(10, jump) <= 11


def test_a_last_run_that_is_still_to_come_does_not_silence_the_beat() -> None:
    every = Every(30)
    assert every.is_due(workers_ticks.steady() + timedelta(hours=1)).is_due
    assert every.is_due(workers_ticks.steady() - timedelta(hours=1)).is_due
    assert not every.is_due(workers_ticks.steady() - timedelta(seconds=10)).is_due


# ---------------------------------------------------------------- real beats, real workers

_COUNTING = """
from celery import signals
from storage.database import autocommit
from sqlalchemy import text
import workers.app as main
app = main.app
def note():
    with autocommit() as connection:
        connection.execute(text("INSERT INTO ran (slot) SELECT slot FROM ticks WHERE name = 'note'"))
app.conf.beat_schedule = {}
app.task(name="note")(main.ticks.once_a_slot("note", note, 1.0))
app.conf.beat_schedule["note"] = main.ticks.entry("note", 1.0, "default")
"""


@contextmanager
def _process(folder: Path, env: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "celery", "-A", "counting", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_two_beats_and_two_sweepers_run_each_slot_once(in_process: Stack, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(_COUNTING)
    with autocommit() as connection:
        connection.execute(text("CREATE TABLE ran (slot timestamptz)"))
    env = {**os.environ, **in_process.env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    try:
        with ExitStack() as processes:
            for name in ("a", "b"):
                worker = ("worker", "-Q", "default", "-P", "solo", "-n", f"{name}@%h", "--without-gossip")
                processes.enter_context(_process(tmp_path, env, *worker, "--without-mingle"))
                processes.enter_context(
                    _process(tmp_path, env, "beat", "--schedule", str(tmp_path / name), "--pidfile=")
                )
            deadline = time.monotonic() + 40
            while len(slots := _ran()) < 8 and time.monotonic() < deadline:
                time.sleep(0.2)
    finally:
        with autocommit() as connection:
            connection.execute(text("DROP TABLE ran"))
    assert len(slots) >= 8
    assert set(Counter(slots).values()) == {1}, "no slot twice"
    gaps = {(later - earlier).total_seconds() for earlier, later in pairwise(slots[2:])}
    assert gaps == {1.0}, "and none left out"


def _ran() -> list[datetime]:
    with autocommit() as connection:
        return list(connection.execute(text("SELECT slot FROM ran ORDER BY slot")).scalars())

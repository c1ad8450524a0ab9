"""Promise 9: two beats by accident, or none for a while: every slot of the schedule runs once."""

import time
from dataclasses import replace

from stack.guard import Guard
from stack.process import Process
from tests.client import User
from tests.faults.chaos import QUICK
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.nodes import ProcessContainer, eventually
from tests.faults.verdict import judge, settled

SECONDS = 8.0  # twice as many runs as slots would show
SWEEP = float(QUICK["SWEEP_SECONDS"])


def slot(fire: House) -> float:
    """When the last slot of the sweep began, in epoch seconds."""
    rows = fire.query("SELECT extract(epoch FROM slot)::float8 AS slot FROM ticks WHERE name = 'jobs.sweep'")
    return float(rows[0]["slot"]) if rows else 0.0


def taken(fire: House) -> int:
    """How many slots were taken, of all ticks: each is one update of its row."""
    return int(fire.query("SELECT n_tup_upd AS n FROM pg_stat_user_tables WHERE relname = 'ticks'")[0]["n"])


def test_with_two_beats_each_slot_runs_once(fire: House, client: User) -> None:
    program = fire.stack.processes["beat"].program
    argv = tuple(part.replace("beat-schedule", "second-schedule") for part in program.argv)
    guard = Guard()
    second = Process(
        replace(program, name="second", argv=argv, log=program.log.with_name("second.log")), guard, lambda _: None
    )
    node = ProcessContainer(second, prompt="is starting.")
    try:
        second.program.log.touch()
        second.start()
        node.ready()
        before, began = taken(fire), time.monotonic()
        history = History(client, clients=2, resend=True)
        with history:
            time.sleep(SECONDS)
        slots, took = taken(fire) - before, time.monotonic() - began
    finally:
        second.stop()
        guard.close()
    # Two seconds for the server's counting, which is late; the other ticks have slots of minutes.
    assert took / SWEEP / 2 <= slots <= (took + 2) / SWEEP + 3, f"{slots} slots were taken in {took:.1f} s"
    assert settled(fire.stack.env, 30) < 20
    assert judge(history, fire.stack.env, fire.ml, {}).violations == []


def test_a_beat_that_was_dead_catches_up_at_once(fire: House, client: User) -> None:
    fire.nodes["beat"].kill()
    history = History(client, clients=0, resend=True)
    for _ in range(5):
        history.order()
    fire.nodes["worker"].kill()
    for _ in range(5):
        history.order()
    fire.nodes["worker"].restart()
    before = slot(fire)
    time.sleep(1.5)  # nobody sweeps
    assert slot(fire) == before
    fire.nodes["beat"].restart()
    eventually(lambda: slot(fire) > before, 10, "the sweep runs again")
    assert settled(fire.stack.env, 30) < 20
    assert judge(history, fire.stack.env, fire.ml, {}).violations == []

"""Promise 9: two beats by accident, or none for a while: every slot of the schedule runs once."""

import time
from dataclasses import replace

from stack.guard import Guard
from stack.process import Process
from tests.client import User
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.nodes import ProcessContainer, eventually
from tests.faults.verdict import judge, settled

SECONDS = 6.0


def swept(fire: House) -> int:
    """How often the sweep has run, as its slots in the database have moved."""
    rows = fire.query("SELECT extract(epoch FROM slot)::float8 AS slot FROM ticks WHERE name = 'jobs.sweep'")
    return round(rows[0]["slot"] / 0.5) if rows else 0


def test_with_two_beats_each_slot_runs_once(fire: House, client: User) -> None:
    program = fire.stack.processes["beat"].program
    argv = tuple(part.replace("beat-schedule", "second-schedule") for part in program.argv)
    guard = Guard()
    second = Process(
        replace(program, name="second", argv=argv, log=program.log.with_name("second.log")), guard, lambda _: None
    )
    node = ProcessContainer(second, prompt="beat: Starting")
    try:
        second.program.log.touch()
        second.start()
        node.ready()
        before, began = swept(fire), time.monotonic()
        history = History(client, clients=2, resend=True)
        with history:
            time.sleep(SECONDS)
        slots, took = swept(fire) - before, time.monotonic() - began
    finally:
        second.stop()
        guard.close()
    assert slots <= took / 0.5 + 1
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
    before = swept(fire)
    time.sleep(1.5)  # nobody sweeps
    assert swept(fire) == before
    fire.nodes["beat"].restart()
    eventually(lambda: swept(fire) > before, 10, "the sweep runs again")
    assert settled(fire.stack.env, 30) < 20
    assert judge(history, fire.stack.env, fire.ml, {}).violations == []

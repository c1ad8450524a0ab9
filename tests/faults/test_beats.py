"""Promise 9: two beats by accident, or none for a while: every slot of the schedule runs once."""

import time
from dataclasses import replace
from typing import LiteralString

import psycopg

from stack.guard import Guard
from stack.process import Process
from tests.client import User
from tests.faults.chaos import QUICK
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.nodes import ProcessContainer, eventually
from tests.faults.verdict import judge, settled

SECONDS = 8.0
SWEEP = float(QUICK["SWEEP_SECONDS"])


def slot(fire: House) -> float:
    """When the last slot of the sweep began, in epoch seconds."""
    rows = fire.query("SELECT extract(epoch FROM slot)::float8 AS slot FROM ticks WHERE name = 'jobs.sweep'")
    return float(rows[0]["slot"]) if rows else 0.0


# Every slot that is taken, written down in the transaction that takes it.
WATCH = """
    CREATE TABLE taken_slots (name text NOT NULL, slot timestamptz NOT NULL);
    CREATE FUNCTION note_slot() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO taken_slots VALUES (NEW.name, NEW.slot); RETURN NULL; END $$;
    CREATE TRIGGER note_slot AFTER INSERT OR UPDATE ON ticks FOR EACH ROW EXECUTE FUNCTION note_slot()"""
FORGET = "DROP TRIGGER note_slot ON ticks; DROP FUNCTION note_slot; DROP TABLE taken_slots"


def define(fire: House, statements: LiteralString) -> None:
    with psycopg.connect(fire.stack.env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(statements)


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
        define(fire, WATCH)
        history = History(client, clients=2, resend=True)
        with history:
            time.sleep(SECONDS)
        slots = [(row["name"], row["slot"]) for row in fire.query("SELECT name, slot FROM taken_slots")]
    finally:
        second.stop()
        guard.close()
        define(fire, FORGET)
    assert len(slots) == len(set(slots)), "a slot was taken twice"
    # some are missed on a busy machine
    assert len([slot for slot in slots if slot[0] == "jobs.sweep"]) >= SECONDS / SWEEP / 3
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

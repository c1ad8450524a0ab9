"""Promises 1, 3 and 4 with a long queue in front of everything, and fairness: what an idle house cannot show."""

import time
from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.client import User
from tests.faults.conftest import Failpoints, House
from tests.faults.history import ARCHIVE
from tests.faults.nodes import eventually

JOBS = 60
STEP = 0.5  # seconds a step takes while there is a backlog; two processes work at it


@pytest.fixture
def busy(fire: House, failpoints: Failpoints) -> Iterator[House]:
    """Every inspection takes half a second, until the end of the test."""
    failpoints.arm("step.running", f"pause:{STEP}@every~inspect")
    yield fire
    failpoints.disarm()
    unfinished = "SELECT count(*) AS n FROM jobs WHERE completed_at IS NULL"
    eventually(lambda: fire.query(unfinished)[0]["n"] == 0, 60, "all that was ordered has ended")


def ordered(user: User, number: int, **options: str) -> list[str]:
    name = user.http.post("/upload", files={"file": ("a.zip", ARCHIVE)}).raise_for_status().json()["filename"]
    answers = [user.http.post("/jobs", json={"filename": name, **options}) for _ in range(number)]
    return [str(answer.raise_for_status().json()["id"]) for answer in answers]


def begun(house: House, jobs: list[str]) -> int:
    found = house.query("SELECT count(*) AS n FROM jobs WHERE id = ANY(%s::uuid[]) AND started_at IS NOT NULL", jobs)
    return int(found[0]["n"])


@pytest.mark.parametrize("priority", ["normal", "high"])
def test_one_job_does_not_wait_for_anothers_many(busy: House, client: User, priority: str) -> None:
    with User(busy.stack.url) as other:
        many = ordered(client, JOBS, priority=priority)
        (one,) = ordered(other, 1)
        eventually(lambda: begun(busy, [one]), 20, "the single job begins")
        before = begun(busy, many)
    assert before < JOBS / 3, f"{before} of {JOBS} jobs of somebody else were begun first"


def test_an_urgent_job_goes_before_the_others_of_its_owner(busy: House, client: User) -> None:
    many = ordered(client, JOBS)
    (urgent,) = ordered(client, 1, priority="high")
    eventually(lambda: begun(busy, [urgent]), 20, "the urgent job begins")
    assert begun(busy, many) < JOBS / 3


def test_a_flush_is_noticed_though_the_queue_is_not_empty(busy: House, client: User) -> None:
    with User(busy.stack.url) as other:
        lost = ordered(client, 20)
        already = begun(busy, lost)
        with redis.Redis.from_url(busy.stack.env["REDIS_URL"]) as broker:
            broker.flushall()
        ordered(other, JOBS)
        eventually(lambda: begun(busy, lost) >= min(20, already + 8), 15, "jobs begin whose messages were lost")


def test_a_step_that_lost_its_process_does_not_queue_up_again(busy: House, client: User) -> None:
    many = ordered(client, JOBS)
    held = "SELECT id, claimed_by, attempt FROM jobs WHERE claim IS NOT NULL AND id = ANY(%s::uuid[])"
    (victim, *_) = eventually(lambda: busy.query(held, many), 10, "a step runs")
    killed = time.monotonic()
    process = int(victim["claimed_by"].rpartition(":")[2])
    next(child for child in busy.nodes["worker"].client.children(recursive=True) if child.pid == process).kill()
    again = "SELECT count(*) AS n FROM job_events WHERE job_id = %s AND type IN ('stage', 'interrupted')"
    eventually(lambda: busy.query(again, victim["id"])[0]["n"] >= 3, 15, "the step runs again")
    assert time.monotonic() - killed < 10
    assert begun(busy, many) < JOBS / 2, "it came before most of the queue"


def test_a_locked_job_does_not_keep_the_sweep_from_the_others(busy: House, client: User) -> None:
    """The lock of a backup, a migration or somebody's open editor, on a job whose message is lost."""
    (locked,) = ordered(client, 1)
    with psycopg.connect(busy.stack.env["DATABASE_URL"]) as editor:
        busy.nodes["worker"].kill()
        (locked,) = ordered(client, 1)
        others = ordered(client, 3)
        editor.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (locked,))
        with redis.Redis.from_url(busy.stack.env["REDIS_URL"]) as broker:
            broker.flushall()
        busy.nodes["worker"].restart()
        eventually(lambda: begun(busy, others) == len(others), 10, "the others begin")
        assert begun(busy, [locked]) == 0
        editor.rollback()
    eventually(lambda: begun(busy, [locked]) == 1, 10, "the locked one begins as soon as it is let go")

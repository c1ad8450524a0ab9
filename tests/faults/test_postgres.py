"""Promise 4: PostgreSQL restarted, its backends killed, its connections exhausted, a row locked."""

import contextlib
import sys
import threading
import time

import psycopg
import pytest

from tests.client import User
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.nodes import eventually
from tests.faults.proxy import Faults, Proxy
from tests.faults.verdict import judge, settled

BACK_SECONDS = 10.0  # after which throughput is to be what it was
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'millrace'"


def completed(fire: House, since: float, until: float) -> int:
    query = "SELECT count(*) AS n FROM jobs WHERE completed_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)"
    return int(fire.query(query, since, until)[0]["n"])


def kept(fire: House, history: History) -> None:
    assert settled(fire.stack.env, 60) < 40
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": verdict.jobs}


def steady(fire: House) -> float:
    """Jobs a second, over eight seconds, longer on a busy machine, so that forty jobs ended in them."""
    began = time.time()
    while time.time() - began < 8 or (completed(fire, began, time.time()) < 40 and time.time() - began < 20):
        time.sleep(0.3)
    until = time.time()
    return completed(fire, began, until) / (until - began)


@pytest.mark.timeout(180)
def test_a_restarted_postgres(fire: House, client: User, capsys: pytest.CaptureFixture[str]) -> None:
    with History(client, clients=3, resend=True) as history:
        eventually(lambda: len(history.answered) >= 20, 30, "the load runs")
        before = [steady(fire) for _ in range(2)]
        fire.nodes["postgres"].restart()
        back = time.time()
        eventually(lambda: completed(fire, back, time.time()) > 0, 10, "jobs are done again")
        resumed = time.time() - back
        time.sleep(max(0.0, back + BACK_SECONDS - time.time()))
        after = [steady(fire) for _ in range(2)]
    with capsys.disabled():
        figures = [" and ".join(f"{rate:.1f}" for rate in windows) for windows in (before, after)]
        sys.stdout.write(f"\n  {figures[0]} jobs/s before, the first job {resumed:.1f} s after Postgres was back, ")
        sys.stdout.write(f"{figures[1]} jobs/s from {BACK_SECONDS:g} s on\n")
    kept(fire, history)
    # two windows of the same differ: the worse before against the better after
    assert max(after) >= 0.9 * min(before) > 0


def test_exhausted_connections_are_answered_with_503_and_retry_after(fire: House, client: User) -> None:
    history = History(client, clients=0, resend=True)
    history.order()
    settled(fire.stack.env, 20)
    taken: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        fire.query(BACKENDS.replace("pid", "pg_terminate_backend(pid)", 1))
        with contextlib.suppress(psycopg.OperationalError):
            while len(taken) < 200:
                taken.append(psycopg.connect(fire.stack.env["DATABASE_URL"], connect_timeout=5))
        answers = [client.http.get(f"/jobs/{history.orders[0].job_id}") for _ in range(5)]
    finally:
        for connection in taken:
            connection.close()
    for answer in answers:
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
    assert 503 in {answer.status_code for answer in answers}
    history.order()
    kept(fire, history)


def test_a_row_locked_for_twenty_seconds_holds_up_nobody_else(fire: House, client: User) -> None:
    history = History(client, clients=0, resend=True)
    locked = history.order().job_id
    assert settled(fire.stack.env, 20) < 15
    answers: list[int] = []

    def rename() -> None:
        with User(client.url, token=client.http.headers["Authorization"].removeprefix("Bearer ")) as other:
            other.http.timeout = 40
            answer = other.http.put(f"/jobs/{locked}", json={"description": "renamed"})
            assert answer.status_code != 503 or "Retry-After" in answer.headers
            answers.append(answer.status_code)

    thread = threading.Thread(target=rename)
    with psycopg.connect(fire.stack.env["DATABASE_URL"]) as connection:
        connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", [locked])
        thread.start()
        began = time.monotonic()
        while time.monotonic() - began < 20:
            history.order()
            assert settled_but(fire, str(locked)), "another job was held up"
            time.sleep(0.5)
    thread.join(timeout=30)
    assert answers == [503], "the lock lasts longer than any statement waits for one"
    kept(fire, history)


def settled_but(fire: House, locked: str) -> bool:
    query = "SELECT id FROM jobs WHERE status IN ('pending', 'queued', 'processing') AND id <> %s"
    return bool(eventually(lambda: not fire.query(query, locked), 10, "every other job has ended"))


def test_a_commit_whose_answer_is_lost_is_one_job(proxied: tuple[House, Proxy]) -> None:
    fire, proxy = proxied
    with User(fire.stack.url) as user:
        history = History(user, clients=0, resend=True)
        history.order()
        for _ in range(3):
            proxy.faults = Faults(lose_answers=1, lose_answer_to=b"COMMIT")
            history.order()
            proxy.heal()
        assert proxy.lost >= 1
        kept(fire, history)

"""A commit whose answer never came is a commit: its object is not deleted."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.client import User
from tests.faults.conftest import Failpoints, House
from tests.faults.history import History
from tests.faults.nodes import eventually
from tests.faults.proxy import Faults, Proxy
from tests.faults.test_postgres import BACKENDS, kept


def begun(history: History, jobs: int = 10) -> None:
    eventually(lambda: len(history.answered) >= jobs, 30, "the load runs")


def test_the_object_of_a_committed_job_stays_when_the_answer_to_the_commit_is_lost(
    proxied: tuple[House, Proxy], armoury: Path
) -> None:
    fire, proxy = proxied
    failpoints = Failpoints(armoury)
    with User(fire.stack.url) as user, ThreadPoolExecutor(1) as pool:
        history = History(user, clients=0, resend=True)
        for name in ("beat", "sweeper", "worker"):
            fire.nodes[name].kill()  # so that the next COMMIT is the order's
        failpoints.arm("order.stored", "pause:1@1")
        ordering = pool.submit(history.order)
        failpoints.wait("order.stored")
        proxy.faults = Faults(lose_answers=1, lose_answer_to=b"COMMIT")
        ordering.result(30)
        proxy.heal()
        failpoints.disarm()
        assert proxy.lost >= 1
        for name in ("worker", "sweeper", "beat"):
            fire.nodes[name].restart()
        kept(fire, history)


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_backends_that_go_away(fire: House, client: User, how: str) -> None:
    with History(client, clients=3, resend=True) as history:
        begun(history)
        if how == "terminated":
            fire.query(BACKENDS.replace("pid", "pg_terminate_backend(pid)", 1))
        else:  # the server ends every other one too, and recovers from its log
            os.kill(fire.query(BACKENDS)[0]["pid"], signal.SIGKILL)
        answered = len(history.answered)
        eventually(lambda: len(history.answered) > answered + 10, 30, "orders are taken again")
    kept(fire, history)


def test_connections_that_are_reset_or_slow(proxied: tuple[House, Proxy]) -> None:
    fire, proxy = proxied
    with User(fire.stack.url) as user:
        with History(user, clients=2, resend=True) as history:
            for _ in range(5):
                begun(history, len(history.answered) + 3)
                proxy.reset()
            proxy.faults = Faults(latency=0.02)
            begun(history, len(history.answered) + 3)
            proxy.heal()
        kept(fire, history)

"""Promise 1: whatever dies, a job whose POST was answered comes to its end, soon and without anybody's action."""

import sys
import time
from collections.abc import Iterator

import pytest

from storage.failpoints import VARIABLE
from tests.client import User
from tests.faults.chaos import house
from tests.faults.conftest import Failpoints, House
from tests.faults.history import History
from tests.faults.nodes import containers
from tests.faults.verdict import judge, settled

PROMISED_SECONDS = 10.0


@pytest.fixture(scope="module")
def default_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Failpoints]]:
    """With the settings as they are shipped."""
    folder = tmp_path_factory.mktemp("failpoints")
    with house({VARIABLE: str(folder)}) as (stack, ml):
        yield House(stack, ml, containers(stack)), Failpoints(folder)


def test_a_step_whose_process_was_killed_goes_on_within_ten_seconds(
    default_house: tuple[House, Failpoints], capsys: pytest.CaptureFixture[str]
) -> None:
    fire, failpoints = default_house
    took: list[float] = []
    with User(fire.stack.url) as user:
        for place in ("step.running", "effects.written", "submit.after"):
            failpoints.arm(place)
            history = History(user, clients=0, resend=True)
            history.order()
            (pid,) = failpoints.wait(place)
            died_at = failpoints.fired_at(place)
            assert settled(fire.stack.env, 40) < 30
            verdict = judge(history, fire.stack.env, fire.ml, {pid: died_at})
            assert verdict.violations == []
            assert len(verdict.recoveries) == 1
            took += verdict.recoveries
    with capsys.disabled():
        words = ", ".join(f"{seconds:.1f}" for seconds in took)
        sys.stdout.write(f"\n  a killed step was taken up again after {words} s\n")
    assert max(took) < PROMISED_SECONDS


@pytest.mark.parametrize("victim", ["worker", "sweeper", "beat", "api", "redis"])
def test_a_process_that_stays_dead_for_a_while_costs_no_job(fire: House, client: User, victim: str) -> None:
    history = History(client, clients=2, resend=True)
    with history:
        deadline = time.monotonic() + 20
        while len(history.answered) < 10:
            assert time.monotonic() < deadline, "the load does not start"
            time.sleep(0.01)
        fire.nodes[victim].kill()
        time.sleep(1.5)  # what we are testing: nobody is there
        fire.nodes[victim].restart()
    assert settled(fire.stack.env, 40) < 30
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": verdict.jobs}

"""Promise 7: a step that takes its worker with it is tried elsewhere, and set aside after three; others go on."""

import pytest

from tests.client import User
from tests.faults.conftest import Failpoints, House
from tests.faults.history import ARCHIVE, History
from tests.faults.verdict import judge, settled


@pytest.mark.parametrize("action", ["kill", "segfault", "exit", "memory"])
def test_a_step_that_kills_its_worker_three_times_is_set_aside(
    fire: House, failpoints: Failpoints, client: User, action: str
) -> None:
    poison = client.http.post("/jobs", json={"title": "poison"}).json()["id"]
    failpoints.arm("step.running", f"{action}@every~{poison}")
    history = History(client, clients=0, resend=True)
    client.http.put(f"/jobs/{poison}/file", files={"file": ("a.zip", ARCHIVE)}).raise_for_status()
    for _ in range(6):
        history.order()
    killed = failpoints.wait("step.running", 60, times=3)
    job = client.finished(poison)
    assert (job["status"], job["error"]["code"], job["error"]["stage"]) == ("failed", "worker_lost", "inspect")
    assert len(set(killed)) == 3, "each time another process"
    assert settled(fire.stack.env, 40) < 30
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": 6}
    outcomes = fire.query("SELECT outcome FROM job_attempts WHERE job_id = %s ORDER BY id", poison)
    assert [row["outcome"] for row in outcomes] == ["lost"] * 3


def test_a_step_that_breaks_is_not_tried_again(fire: House, failpoints: Failpoints, client: User) -> None:
    poison = client.http.post("/jobs", json={"title": "poison"}).json()["id"]
    failpoints.arm("step.running", f"raise@every~{poison}")
    client.http.put(f"/jobs/{poison}/file", files={"file": ("a.zip", ARCHIVE)}).raise_for_status()
    assert client.finished(poison)["error"]["code"] == "step_failed"
    assert len(failpoints.fired("step.running")) == 1


def test_a_step_that_hangs_is_set_aside_and_holds_up_nobody(fire: House, failpoints: Failpoints, client: User) -> None:
    poison = client.http.post("/jobs", json={"title": "poison"}).json()["id"]
    failpoints.arm("step.running", f"pause:600@every~{poison}")
    history = History(client, clients=0, resend=True)
    client.http.put(f"/jobs/{poison}/file", files={"file": ("a.zip", ARCHIVE)}).raise_for_status()
    for _ in range(6):
        history.order()
    job = client.finished(poison, 90)
    assert (job["status"], job["error"]["code"]) == ("failed", "step_timeout")
    assert len(set(failpoints.fired("step.running"))) == 3
    assert settled(fire.stack.env, 40) < 30
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": 6}

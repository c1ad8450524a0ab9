"""Every gap between object storage, commit, publish and acknowledgement: a process dies there, the job does not."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from domain.errors.neighbours import BadSetting
from stack.up import ROOT
from storage.failpoints import PLACES, VARIABLE, Armed, FailpointReached, armed, reached, read_rule
from tests.client import User
from tests.faults.conftest import Failpoints, House
from tests.faults.history import ARCHIVE, History
from tests.faults.nodes import eventually
from tests.faults.verdict import judge, settled

# The same place in another process than the first that comes by: the step that is published there.
ELSEWHERE = [("publish.before", "parse"), ("publish.after", "parse"), ("step.claimed", "parse")]
ELSEWHERE += [(place, "parse") for place in PLACES if place.startswith(("outcome.", "effects."))]

# tests/integration/test_recordings_killed.py has these: no job with a file comes by
OF_MAIL = [place for place in PLACES if place.startswith("mail.")]


def test_every_place_is_called_and_only_those() -> None:
    called = {
        name
        for floor in ("api", "workers", "storage")
        for path in (ROOT / floor).rglob("*.py")
        for name in re.findall(r'\breached\("([^"]+)"', path.read_text())
        if path.name != "failpoints.py"
    }
    assert called == set(PLACES)


@pytest.mark.parametrize(
    ("place", "about"),
    [*((place, "") for place in PLACES if place not in OF_MAIL), *ELSEWHERE],
    ids=lambda value: value or "anywhere",
)
def test_a_process_dies_there_and_no_job_is_lost_or_done_twice(
    fire: House, failpoints: Failpoints, client: User, place: str, about: str
) -> None:
    if place == "sweep.marked":
        failpoints.arm("order.committed")  # its message is never sent, so a sweep finds it due
    failpoints.arm(place, f"kill@1~{about}" if about else "kill@1")
    history = History(client, clients=0, resend=True)
    history.order()
    failpoints.wait(place)
    assert settled(fire.stack.env, 30) < 20
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": 1}


def up(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("place", ["order.stored", "order.committed", "order.published"])
def test_the_api_dies_while_a_file_is_attached(fire: House, failpoints: Failpoints, client: User, place: str) -> None:
    job_id = client.http.post("/jobs", json={"title": "without a file"}).json()["id"]
    failpoints.arm(place, f"kill@1~{job_id}")
    with pytest.raises(httpx.TransportError):
        client.http.put(f"/jobs/{job_id}/file", files={"file": ("a.zip", ARCHIVE)})
    failpoints.wait(place)
    eventually(lambda: up(f"{client.url}/health/ready"), 30, "the API is back")
    again = client.http.put(f"/jobs/{job_id}/file", files={"file": ("a.zip", ARCHIVE)})
    # what was committed before the death is not done twice, and the client is told so
    assert again.status_code == (200 if place == "order.stored" else 409), again.text
    assert client.finished(job_id)["status"] == "succeeded"
    effects = fire.query("SELECT step, count(*) AS n FROM job_attempts WHERE job_id = %s GROUP BY step", job_id)
    assert {row["step"]: row["n"] for row in effects} == {"inspect": 1, "submit": 1, "parse": 1, "finish": 1}


@pytest.mark.parametrize("place", ["step.running", "outcome.before", "outcome.committed"])
def test_a_process_that_wakes_up_late_changes_nothing(
    fire: House, failpoints: Failpoints, client: User, place: str
) -> None:
    failpoints.arm(place, "stop@1")
    history = History(client, clients=0, resend=True)
    order = history.order()
    (sleeper,) = failpoints.wait(place)
    try:
        assert settled(fire.stack.env, 30) < 20
        before = fire.query("SELECT * FROM job_events WHERE job_id = %s ORDER BY seq", order.job_id)
    finally:
        os.kill(sleeper, signal.SIGCONT)
    history.order()  # somebody has done another job meanwhile
    assert settled(fire.stack.env, 30) < 20
    assert fire.query("SELECT * FROM job_events WHERE job_id = %s ORDER BY seq", order.job_id) == before
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": 2}


# ---------------------------------------------------------------- the module itself


def environ(tmp_path: Path, rules: str, **more: str) -> Mapping[str, str]:
    return {VARIABLE: rules, "MILLRACE_ENV": "development", "MILLRACE_DATA_DIR": str(tmp_path), **more}


def test_nothing_happens_without_the_variable() -> None:
    assert armed({"MILLRACE_ENV": "production"}) is None
    reached("no such place, and nobody looks")


def test_rules_act_at_the_nth_time_and_once_among_all_processes(tmp_path: Path) -> None:
    env = environ(tmp_path, "step.claimed=raise@2,submit.before=raise@every~abc")
    first, second = armed(env), armed(env)
    assert first is not None
    assert second is not None
    first.reached("step.claimed", ())
    with pytest.raises(FailpointReached):
        first.reached("step.claimed", ())
    for _ in range(3):
        second.reached("step.claimed", ())
    first.reached("submit.before", ("abd",))
    for _ in range(2):
        with pytest.raises(FailpointReached):
            first.reached("submit.before", ("abc", 1))
    assert len((tmp_path / "failpoints" / "submit.before.fired").read_text().splitlines()) == 2


def test_a_folder_arms_a_running_process(tmp_path: Path) -> None:
    process = armed(environ(tmp_path, str(tmp_path)))
    assert isinstance(process, Armed)
    process.reached("step.claimed", ())
    for _ in range(2):
        (tmp_path / "step.claimed").write_text("raise@1")
        with pytest.raises(FailpointReached):
            process.reached("step.claimed", ())
        process.reached("step.claimed", ())


@pytest.mark.parametrize("rules", ["step.claimed", "step.claimed=explode", "nowhere=kill", "step.claimed=kill@often"])
def test_rules_that_cannot_be_read_are_refused(tmp_path: Path, rules: str) -> None:
    with pytest.raises(BadSetting, match=VARIABLE):
        armed(environ(tmp_path, rules))


@pytest.mark.parametrize("environment", ["production", ""])
def test_production_refuses_to_start_with_failpoints(tmp_path: Path, environment: str) -> None:
    env = {**os.environ, **environ(tmp_path, "step.claimed=kill"), "MILLRACE_ENV": environment}
    if not environment:
        del env["MILLRACE_ENV"]  # production is the default
    done = subprocess.run(
        [sys.executable, "-c", "import storage.dispatch"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert f"{VARIABLE}: must not be set in production" in done.stderr


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("kill", -signal.SIGKILL),
        ("segfault", -signal.SIGSEGV),
        ("exit", 70),
        ("pause:0.01", 0),
        ("raise", 1),
        ("kill@2", 0),
    ],
)
def test_what_a_rule_does_to_its_process(tmp_path: Path, rule: str, code: int) -> None:
    env = {**os.environ, **environ(tmp_path, f"step.claimed={rule}")}
    program = "from storage.failpoints import reached; reached('step.claimed')"
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == code
    assert read_rule(rule).action in rule

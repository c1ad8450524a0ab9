"""Cancelling, rerunning, attempts, priorities and the limit per owner, over the real stack."""

import threading
import time
from typing import Any

import httpx
import psycopg
import pytest

from stack.up import Stack
from tests.brokers import broker_env
from tests.client import User
from tests.integration.conftest import ML_TOKEN
from tests.scripted_ml import ScriptedMl

TEXT = b"some text\n" * 30
Rows = psycopg.Connection[dict[str, Any]]


def waiting(user: User) -> dict[str, Any]:
    """A job the ML service has taken and does not finish."""
    job = user.order("a.txt", TEXT, profile="silent")
    for event in user.events(job["id"]):
        if event.type == "waiting":
            return job
    raise AssertionError(user.job(job["id"]))


# ---------------------------------------------------------------- cancel


def test_a_waiting_job_is_cancelled_at_once_and_stays_so(scripted_user: User, scripted_ml: ScriptedMl) -> None:
    job = waiting(scripted_user)
    answer = scripted_user.http.post(f"/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert [event.type for event in scripted_user.events(job["id"])][-1] == "cancelled"
    (request,) = scripted_ml.submissions(job["id"])
    assert scripted_ml.complete(request, status="succeeded") == 409
    assert scripted_user.job(job["id"])["status"] == "cancelled"


def test_a_pending_job_can_be_cancelled_and_takes_no_file_then(scripted_user: User) -> None:
    job = scripted_user.http.post("/jobs", json={}).json()
    assert scripted_user.http.post(f"/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    answer = scripted_user.http.put(f"/jobs/{job['id']}/file", files={"file": ("a.txt", TEXT)})
    assert (answer.status_code, answer.json()["code"]) == (409, "job_is_final")
    assert "cancelled" in answer.json()["detail"]
    assert scripted_user.http.get("/files").json()["items"] == []


def test_a_job_in_a_step_is_cancelled_when_the_step_ends(scripted_user: User) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="slow")  # the submission takes its second, again and again
    for event in scripted_user.events(job["id"]):
        if event.data.get("stage") == "submit":
            break
    began = time.monotonic()
    assert scripted_user.http.post(f"/jobs/{job['id']}/cancel").status_code == 202
    assert scripted_user.finished(job["id"])["status"] == "cancelled"
    assert time.monotonic() - began < 5


def test_a_finished_job_cannot_be_cancelled(scripted_user: User) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="instant")["id"])
    answer = scripted_user.http.post(f"/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_is_final")
    assert scripted_user.job(job["id"])["status"] == "succeeded"


def test_somebody_elses_job_can_be_neither_cancelled_nor_rerun(scripted: Stack, scripted_user: User) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="instant")["id"])
    with User(scripted.url) as other:
        for action in ("cancel", "retry"):
            answer = other.http.post(f"/jobs/{job['id']}/{action}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert other.http.get(f"/jobs/{job['id']}/attempts").status_code == 404


# ---------------------------------------------------------------- rerun


def test_a_rerun_is_a_new_job_on_the_same_file(scripted_user: User) -> None:
    first = scripted_user.order("a.txt", TEXT, profile="error400", title="Once more", priority="high")
    scripted_user.finished(first["id"])
    answer = scripted_user.http.post(f"/jobs/{first['id']}/retry")
    second = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{second['id']}"
    assert second["id"] != first["id"]
    assert second["parent_id"] == first["id"]
    for name in ("kind", "title", "profile", "threshold", "priority", "file"):
        assert second[name] == first[name], name
    assert scripted_user.finished(second["id"])["error"]["code"] == "ml_rejected"
    assert scripted_user.job(first["id"])["status"] == "failed"


def test_a_file_shared_with_a_rerun_goes_with_the_last_of_them(scripted_user: User) -> None:
    first = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="instant")["id"])
    second = scripted_user.finished(scripted_user.http.post(f"/jobs/{first['id']}/retry").json()["id"])
    assert scripted_user.http.delete(f"/jobs/{first['id']}").status_code == 204
    assert scripted_user.http.get(f"/jobs/{second['id']}/file").content == TEXT
    assert scripted_user.job(second["id"])["parent_id"] is None
    assert scripted_user.http.delete(f"/jobs/{second['id']}").status_code == 204
    assert scripted_user.http.get("/files").json()["items"] == []


def test_what_has_not_ended_is_not_rerun(scripted_user: User) -> None:
    job = scripted_user.http.post("/jobs", json={}).json()
    answer = scripted_user.http.post(f"/jobs/{job['id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


# ---------------------------------------------------------------- attempts


def test_attempts_are_kept_with_their_errors(scripted_user: User) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="once500")["id"])
    attempts = scripted_user.http.get(f"/jobs/{job['id']}/attempts").json()["items"]
    told = [(one["step"], one["attempt"], one["outcome"]) for one in attempts]
    assert told == [
        ("inspect", 1, "done"),
        ("submit", 1, "retrying"),
        ("submit", 2, "done"),
        ("parse", 1, "done"),
        ("finish", 1, "done"),
    ]
    assert attempts[1]["error"]["code"] == "ml_unavailable"
    assert all(one["worker"] and one["started_at"] <= one["finished_at"] for one in attempts)
    page = scripted_user.http.get(f"/jobs/{job['id']}/attempts", params={"limit": 2}).json()
    rest = scripted_user.http.get(f"/jobs/{job['id']}/attempts", params={"after": page["next"]}).json()
    assert page["items"] + rest["items"] == attempts
    assert rest["next"] is None


def test_the_running_attempt_is_seen(scripted_user: User) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="slow")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        attempts = scripted_user.http.get(f"/jobs/{job['id']}/attempts").json()["items"]
        if attempts and attempts[-1]["outcome"] == "running" and attempts[-1]["step"] == "submit":
            assert attempts[-1]["finished_at"] is None
            return
        time.sleep(0.02)
    raise AssertionError(attempts)


# ---------------------------------------------------------------- fairness


@pytest.fixture
def limited(scripted_ml: ScriptedMl) -> Any:
    from stack.up import running

    env = {
        "ML_SERVICE_URL": scripted_ml.url,
        "ML_SERVICE_TOKEN": ML_TOKEN,
        "ML_PROFILES": "silent,instant",
        "ML_DEFAULT_PROFILE": "instant",
        "OWNER_RUNNING_JOBS": "3",
        "SWEEP_SECONDS": "0.5",
        **broker_env(),
    }
    with running(env=env, only=["api", "worker", "sweeper", "beat"]) as stack:
        yield stack


def test_an_owners_jobs_beyond_the_limit_wait_and_do_not_hold_up_others(limited: Stack) -> None:
    with User(limited.url) as busy, User(limited.url) as single:
        rows = psycopg.connect(limited.env["DATABASE_URL"], autocommit=True)
        most = [0]
        stop = threading.Event()

        def watch() -> None:
            with psycopg.connect(limited.env["DATABASE_URL"], autocommit=True) as connection:
                while not stop.is_set():
                    (running,) = connection.execute(
                        "SELECT count(*) FROM jobs WHERE admitted AND status IN ('queued', 'processing')"
                    ).fetchone() or (0,)
                    most[0] = max(most[0], running)

        held = [busy.order("a.txt", TEXT, profile="silent") for _ in range(3)]
        late = [busy.order("b.txt", TEXT, priority=priority) for priority in ("low", "normal", "high")]
        # the limit is used up: none of these may begin, and another's job is done meanwhile
        done = single.finished(single.order("c.txt", TEXT)["id"])
        assert done["status"] == "succeeded"
        assert [busy.job(job["id"])["status"] for job in late] == ["queued"] * 3
        watcher = threading.Thread(target=watch)
        watcher.start()
        assert busy.http.post(f"/jobs/{held[0]['id']}/cancel").status_code == 202
        finished = [busy.finished(job["id"]) for job in late]
        stop.set()
        watcher.join()
        rows.close()
    assert [job["status"] for job in finished] == ["succeeded"] * 3
    by_begin = sorted(finished, key=lambda job: job["started_at"])
    assert [job["priority"] for job in by_begin] == ["high", "normal", "low"]
    assert most[0] == 3


def test_the_limit_is_exact_when_many_are_ordered_at_once(limited: Stack) -> None:
    with User(limited.url) as user, psycopg.connect(limited.env["DATABASE_URL"], autocommit=True) as rows:

        def order() -> None:
            headers = dict(user.http.headers)
            files = {"file": ("a.txt", TEXT)}
            url = f"{limited.url}/api/v1/jobs"
            answer = httpx.post(url, headers=headers, files=files, data={"profile": "silent"}, timeout=30)
            assert answer.status_code == 202, (limited.data_dir / "logs" / "api.log").read_text()[-4000:]

        threads = [threading.Thread(target=order) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        admitted = rows.execute("SELECT count(*) FILTER (WHERE admitted), count(*) FROM jobs").fetchone()
    assert admitted == (3, 20)

"""Deleting a job: beside whoever runs it again or deletes its file, and while somebody works on it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from httpx_sse import connect_sse
from websockets.sync.client import connect

from stack.up import Stack
from tests.client import User
from tests.scripted_ml import ScriptedMl

TEXT = b"some text\n" * 30
Rows = psycopg.Connection[dict[str, Any]]
WAITS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'millrace' AND wait_event_type = 'Lock'"

# deadlock_timeout is 1 s: by then those who wait for each other have been found out
LONG_WAITS = f"SELECT FROM pg_locks WHERE pid IN ({WAITS}) AND waitstart < clock_timestamp() - interval '1.2 s'"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def again(user: User) -> User:
    """The same account on a connection of its own."""
    return User(user.url, token=user.http.headers["Authorization"].removeprefix("Bearer "))


def ended(user: User) -> dict[str, Any]:
    return user.finished(user.order("a.txt", TEXT, profile="instant")["id"])


def waiting(rows: Rows, number: int, query: str = WAITS) -> None:
    """Until so many statements of ours wait for a lock."""
    deadline = time.monotonic() + 10
    while len(rows.execute(query.encode()).fetchall()) < number:
        assert time.monotonic() < deadline, f"{number} statements wait"
        time.sleep(0.01)


@contextmanager
def held(stack: Stack, query: str, *values: object) -> Iterator[None]:
    """Somebody else's locks, for the block."""
    with psycopg.connect(stack.env["DATABASE_URL"]) as connection:
        assert connection.execute(query.encode(), values).rowcount == 1
        yield
        connection.rollback()


def answer(future: Future[httpx.Response]) -> tuple[int, str | None]:
    told = future.result(20)
    return told.status_code, told.json()["code"] if told.status_code >= 400 else None


# ---------------------------------------------------------------- beside others


@pytest.mark.parametrize("lock", ["KEY SHARE", "UPDATE"])
def test_a_job_deleted_while_it_is_run_again_is_gone_for_the_rerun(
    scripted: Stack, scripted_user: User, rows: Rows, pool: ThreadPoolExecutor, lock: str
) -> None:
    job = ended(scripted_user)["id"]
    with again(scripted_user) as deleter, again(scripted_user) as retrier:
        query = f"SELECT FROM files WHERE id = (SELECT input_file_id FROM jobs WHERE id = %s) FOR {lock}"
        with held(scripted, query, job):
            deleting = pool.submit(deleter.http.delete, f"/jobs/{job}")  # has the job, and waits for its file
            waiting(rows, 1)
            retrying = pool.submit(retrier.http.post, f"/jobs/{job}/retry")
            waiting(rows, 2)
            waiting(rows, 2, LONG_WAITS)
        assert answer(deleting) == (204, None)
        assert answer(retrying) == (404, "not_found")


def test_a_rerun_that_came_first_keeps_the_file(
    scripted: Stack, scripted_user: User, rows: Rows, pool: ThreadPoolExecutor
) -> None:
    first = ended(scripted_user)
    owner = rows.execute("SELECT owner_id FROM jobs WHERE id = %s", [first["id"]]).fetchall()[0]["owner_id"]
    admission = "SELECT pg_advisory_xact_lock(hashtextextended('jobs of ' || CAST(%s AS text), 0))"
    with again(scripted_user) as deleter, again(scripted_user) as retrier:
        with held(scripted, admission, owner):
            retrying = pool.submit(retrier.http.post, f"/jobs/{first['id']}/retry")
            waiting(rows, 1)
            deleting = pool.submit(deleter.http.delete, f"/jobs/{first['id']}")
            waiting(rows, 2)
        assert answer(retrying) == (202, None)
        assert answer(deleting) == (204, None)
    second = scripted_user.finished(retrying.result().json()["id"])
    assert (second["status"], second["parent_id"]) == ("succeeded", None)
    assert scripted_user.http.get(f"/jobs/{second['id']}/file").content == TEXT


def test_a_file_and_its_job_deleted_at_once(
    scripted: Stack, scripted_user: User, rows: Rows, pool: ThreadPoolExecutor
) -> None:
    job = ended(scripted_user)
    filename = scripted_user.http.get("/files").json()["items"][0]["filename"]
    with again(scripted_user) as one, again(scripted_user) as other:
        query = "SELECT FROM files WHERE filename = %s FOR UPDATE"
        with held(scripted, query, filename):
            file_first = pool.submit(one.http.delete, f"/files/{filename}")
            waiting(rows, 1)
            job_second = pool.submit(other.http.delete, f"/jobs/{job['id']}")
            waiting(rows, 2)
        assert answer(file_first) == (409, "file_in_use")
        assert answer(job_second) == (204, None)
    assert scripted_user.http.get("/files").json()["items"] == []


def test_everything_at_once_is_done_or_refused_and_never_an_error(
    scripted_user: User, pool: ThreadPoolExecutor
) -> None:
    users = [again(scripted_user) for _ in range(4)]
    made = []
    for _ in range(6):
        job, barrier = ended(scripted_user)["id"], threading.Barrier(4)

        def act(call: Callable[[], httpx.Response], barrier: threading.Barrier = barrier) -> httpx.Response:
            barrier.wait()
            return call()

        calls: list[Callable[[], httpx.Response]] = [
            lambda job=job: users[0].http.delete(f"/jobs/{job}"),
            lambda job=job: users[1].http.post(f"/jobs/{job}/retry"),
            lambda job=job: users[2].http.post(f"/jobs/{job}/retry"),
            lambda job=job: users[3].http.delete(f"/jobs/{job}"),
        ]
        answers = [told.result(30) for told in [pool.submit(act, call) for call in calls]]
        assert sorted(answers[n].status_code for n in (0, 3)) == [204, 404]
        assert {answers[n].status_code for n in (1, 2)} <= {202, 404}
        made += [told.json()["id"] for told in answers if told.status_code == 202]
    for user in users:
        user.http.close()
    assert {scripted_user.finished(job)["status"] for job in made} <= {"succeeded"}


# ---------------------------------------------------------------- while somebody works on it


def in_step(user: User, profile: str) -> str:
    """A job whose submission takes its second, again and again, just now."""
    job = str(user.order("a.txt", TEXT, profile=profile)["id"])
    for event in user.events(job):
        if event.data.get("stage") == "submit":
            return job
    raise AssertionError(user.job(job))


def outcomes(stack: Stack, job: str) -> list[str]:
    """How the job's steps have ended so far, as the worker logs it."""
    lines = (stack.data_dir / "logs" / "worker.log").read_text().splitlines()
    logged = [json.loads(line) for line in lines if job in line and line.startswith("{")]
    return [one["outcome"] for one in logged if one["event"] == "step_ended"]


def test_a_running_job_that_is_deleted_ends_as_cancelled_wherever_it_is_followed(
    scripted: Stack, scripted_user: User, scripted_ml: ScriptedMl, rows: Rows, pool: ThreadPoolExecutor
) -> None:
    hook = {"url": "https://93.184.216.34/", "event_types": ["job.queued", "job.cancelled"]}
    webhook = scripted_user.http.post("/webhooks", json=hook).json()["id"]
    job = in_step(scripted_user, "slow")
    ready = [threading.Event() for _ in range(3)]
    too_late = time.monotonic() + 20  # looked at with each sign of life, four a minute

    def of_job() -> list[str]:
        told = []
        with again(scripted_user) as user:
            for event in user.events(job):
                told.append(event.type)
                ready[0].set()
        return told

    def of_owner() -> tuple[str, str]:
        with again(scripted_user) as user, connect_sse(user.http, "GET", "/events") as source:
            for sse in source.iter_sse():
                ready[1].set()  # the first thing said is where the stream begins: what happens from now on is told
                assert time.monotonic() < too_late, "nobody was told"
                body = json.loads(sse.data) if sse.data else {}
                if body.get("type") == "cancelled":
                    return body["job_id"], sse.id
        raise AssertionError("the stream ended")

    def of_socket() -> list[str]:
        token = scripted_user.http.headers["Authorization"]
        url = f"{scripted_user.url.replace('http', 'ws')}/api/v1/ws/jobs/{job}"
        with connect(url, additional_headers={"Authorization": token}, proxy=None) as socket:
            ready[2].set()
            told = [json.loads(message)["type"] for message in socket]
            return [*told, str(socket.protocol.close_code)]

    following = [pool.submit(follow) for follow in (of_job, of_owner, of_socket)]
    assert all(one.wait(10) for one in ready)
    assert scripted_user.http.delete(f"/jobs/{job}").status_code == 204
    streamed, (told, place), socketed = (one.result(20) for one in following)
    assert streamed[-1] == "cancelled"
    assert streamed.count("cancelled") == 1
    assert told == job
    assert ":" in place, "one resumes at a position of this stream, not at the number of a job's event"
    assert socketed[-2:] == ["cancelled", "1000"]
    assert scripted_user.http.get(f"/jobs/{job}").status_code == 404
    assert scripted_user.http.get(f"/jobs/{job}/events").status_code == 404
    deliveries = scripted_user.http.get(f"/webhooks/{webhook}/deliveries").json()["items"]
    assert sorted(one["type"] for one in deliveries) == ["job.cancelled", "job.queued"]
    until = time.monotonic() + 10
    while not [one for one in scripted_ml.cancelled if one == job] and time.monotonic() < until:
        time.sleep(0.05)
    assert job in scripted_ml.cancelled
    until = time.monotonic() + 15
    while "claim_gone" not in outcomes(scripted, job):  # of the submission that was under way
        assert time.monotonic() < until
        time.sleep(0.05)
    left = "SELECT (SELECT count(*) FROM jobs WHERE id = %s) + (SELECT count(*) FROM job_events WHERE job_id = %s) AS n"
    assert rows.execute(left, [job, job]).fetchall()[0]["n"] == 0


def test_a_deleted_job_makes_room_for_the_next_of_its_owner_and_one_that_had_ended_is_not_cancelled(
    scripted_user: User, rows: Rows
) -> None:
    hook = {"url": "https://93.184.216.34/", "event_types": ["job.succeeded", "job.cancelled"]}
    webhook = scripted_user.http.post("/webhooks", json=hook).json()["id"]
    job = ended(scripted_user)["id"]
    assert scripted_user.http.delete(f"/jobs/{job}").status_code == 204
    deliveries = scripted_user.http.get(f"/webhooks/{webhook}/deliveries").json()["items"]
    assert [one["type"] for one in deliveries] == ["job.succeeded"], "told once, whether it was read before or not"

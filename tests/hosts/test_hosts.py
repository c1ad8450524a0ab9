"""Hosts that lose each other: a worker host and the API host are cut off and come back, and nothing happens twice."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.client import SseEvent, User
from tests.hosts.house import LEASE, SWEEP, WORKERS, House, eventually

pytestmark = pytest.mark.timeout(180)

TEXT = b"some text\n"
JOBS = 12
NOTICED_SECONDS = 10.0  # a host that is back works again
_HELD = "SELECT id::text, split_part(claimed_by, '/', 1) AS host FROM jobs WHERE claim IS NOT NULL AND step = 'submit'"
_ATTEMPTS = """
    SELECT step, attempt, outcome, split_part(worker, '/', 1) AS host, extract(epoch FROM started_at)::float8 AS began
    FROM job_attempts WHERE job_id = %s ORDER BY id"""

_WORKED = "SELECT DISTINCT split_part(worker, '/', 1) AS host FROM job_attempts WHERE job_id = ANY(%s::uuid[])"


def say(line: str) -> None:
    sys.stdout.write(f"\n  {line}\n")


def hosts_that_worked(house: House, ids: list[str]) -> set[str]:
    return {row["host"] for row in house.query(_WORKED, ids)}


def record(house: House, job_id: str) -> tuple[Any, ...]:
    """Everything a late commit could change."""
    (job,) = house.query("SELECT * FROM jobs WHERE id = %s", job_id)
    events = house.query("SELECT * FROM job_events WHERE job_id = %s ORDER BY seq", job_id)
    results = house.query("SELECT * FROM result_rows WHERE job_id = %s", job_id)
    return job, events, house.query(_ATTEMPTS, job_id), sorted(map(str, results))


def all_of(user: User, ids: list[str], seconds: float = 60) -> set[str]:
    return {user.finished(job_id, seconds)["status"] for job_id in ids}


@contextmanager
def cut_off(house: House, host: str) -> Iterator[None]:
    house.network.cut_off(host)
    try:
        yield
    finally:
        house.network.plug_in(host)


def test_jobs_flow_on_both_worker_hosts(house: House, user: User) -> None:
    ids = [user.order("a.txt", TEXT, profile="held")["id"] for _ in range(JOBS)]
    eventually(lambda: {row["host"] for row in house.query(_HELD)} == set(WORKERS), 30, "both hosts hold jobs")
    for job_id in ids:
        house.ml.let_go(job_id)
    assert all_of(user, ids) == {"succeeded"}
    assert hosts_that_worked(house, ids) == set(WORKERS)


def test_a_worker_host_that_is_cut_off_in_mid_step_is_replaced_and_changes_nothing_later(
    house: House, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [user.order("a.txt", TEXT, profile="held")["id"] for _ in range(4)]
    held = eventually(lambda: len(rows := house.query(_HELD)) == 4 and rows, 30, "both hosts are full")
    lost = [row["id"] for row in held if row["host"] == "w1"]
    assert lost, f"w1 holds none of {held}"
    with cut_off(house, "w1"):
        cut_at = time.monotonic()
        for job_id in set(ids) - set(lost):
            house.ml.let_go(job_id)
        query = "SELECT id::text, extract(epoch FROM lease_until)::float8 AS until FROM jobs WHERE id = ANY(%s::uuid[])"
        leases = {row["id"]: row["until"] for row in house.query(query, lost)}
        assert all_of(user, ids) == {"succeeded"}
        done_after = time.monotonic() - cut_at
        before = {job_id: record(house, job_id) for job_id in lost}

    taken_over: list[float] = []
    for job_id, (_, events, attempts, results) in before.items():
        tried = [(row["step"], row["attempt"], row["outcome"], row["host"]) for row in attempts]
        assert tried.count(("submit", 1, "lost", "w1")) == 1, tried
        assert tried.count(("submit", 1, "done", "w2")) == 1, tried
        (again,) = [row["began"] for row in attempts if row["step"] == "submit" and row["outcome"] == "done"]
        taken_over.append(again - leases[job_id])
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert len(results) == 2
        assert {one["idempotency_key"] for one in house.ml.submissions(job_id)} == {f"{job_id}:1"}
    assert min(taken_over) >= 0, "never before the lease has run out"
    assert max(taken_over) < SWEEP + 2

    back_at = time.monotonic()
    for job_id in lost:
        house.ml.let_go(job_id)  # now the answer to w1's own submission comes, and w1 goes to commit
    for job_id in lost:
        eventually(lambda job_id=job_id: claim_gone(house, "w1", job_id), 40, f"w1 finds its claim on {job_id} gone")
    late_after = time.monotonic() - back_at
    assert {job_id: record(house, job_id) for job_id in lost} == before

    working_after = time.monotonic() - back_at
    deadline = time.monotonic() + 30
    more: list[str] = []
    while "w1" not in hosts_that_worked(house, more):
        assert time.monotonic() < deadline, "w1 does not work again"
        more += [user.order("a.txt", TEXT)["id"] for _ in range(4)]
        assert all_of(user, more[-4:]) == {"succeeded"}
        working_after = time.monotonic() - back_at
    with capsys.disabled():
        say(
            f"w1 cut off in mid-step: w2 took over {min(taken_over):.1f} to {max(taken_over):.1f} s after the lease of "
            f"{LEASE:g} s, all was done {done_after:.1f} s after the cut"
        )
        say(f"w1 back: its late commits refused after {late_after:.1f} s, it worked again after {working_after:.1f} s")


def claim_gone(house: House, host: str, job_id: str) -> bool:
    lines = [line for line in house.log(host).splitlines() if job_id in line and line.startswith("{")]
    return any(json.loads(line).get("outcome") == "claim_gone" for line in lines)


def test_an_api_host_that_lost_redis_takes_orders_and_its_streams_catch_up(
    house: House, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = user.order("a.txt", TEXT, profile="held")["id"]
    eventually(lambda: any(row["id"] == watched for row in house.query(_HELD)), 30, "the job is at the ML service")
    seen: list[SseEvent] = []
    seen_at: list[float] = []

    def watch() -> None:
        with User(house.url, user.http.headers["Authorization"].removeprefix("Bearer ")) as own:
            own.http.timeout = 60
            for event in own.events(watched):
                seen.append(event)
                seen_at.append(time.monotonic())

    stream = threading.Thread(target=watch)
    stream.start()
    eventually(lambda: seen, 20, "the stream has begun")
    house.network.part("api", "redis")
    try:
        began = time.monotonic()
        ordered = user.order("b.txt", TEXT)["id"]
        order_took = time.monotonic() - began
        house.ml.let_go(watched)
        query = "SELECT FROM jobs WHERE id = ANY(%s::uuid[]) AND status = 'succeeded'"
        eventually(lambda: len(house.query(query, [watched, ordered])) == 2, 40, "both jobs are done by the others")
        done_took = time.monotonic() - began
        during = len(seen)
    finally:
        house.network.join("api", "redis")
        back_at = time.monotonic()
    stream.join(60)
    assert not stream.is_alive(), "the stream does not end"
    numbered = [event.id for event in seen if event.id]
    assert numbered == list(range(1, len(numbered) + 1))
    assert [event.type for event in seen if event.type == "succeeded"] == ["succeeded"]
    assert [event.type for event in user.events(ordered)][-1] == "succeeded"
    with capsys.disabled():
        say(
            f"API without Redis: an order took {order_took:.1f} s, it was done after {done_took:.1f} s; the stream had "
            f"{during} of {len(seen)} events when Redis was back, all {max(0.0, seen_at[-1] - back_at):.1f} s later"
        )


def test_an_api_host_that_was_cut_off_altogether_answers_again(
    house: House, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = user.order("a.txt", TEXT, profile="held")["id"]
    eventually(lambda: any(row["id"] == job_id for row in house.query(_HELD)), 30, "the job is at the ML service")
    with cut_off(house, "api"):
        house.ml.let_go(job_id)
        done = "SELECT FROM jobs WHERE id = %s AND status = 'succeeded'"
        eventually(lambda: house.query(done, job_id), 30, "the job is done while nobody can ask")
    back_at = time.monotonic()
    with User(house.url, user.http.headers["Authorization"].removeprefix("Bearer ")) as again:
        events = [event.id for event in again.events(job_id) if event.id]
        assert events == list(range(1, len(events) + 1))
        new = again.order("b.txt", TEXT)["id"]
        assert again.finished(new)["status"] == "succeeded"
    took = time.monotonic() - back_at
    assert took < NOTICED_SECONDS
    with capsys.disabled():
        say(f"API host back: a stream read and a new job done after {took:.1f} s")


def test_an_api_host_that_lost_the_database_says_so_and_is_well_again(
    house: House, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    token = user.http.headers["Authorization"].removeprefix("Bearer ")
    # asked from another host: this one is the database's own
    with house.network.inside("redis"), User(house.url, token) as elsewhere:
        elsewhere.http.get("/jobs").raise_for_status()
        house.network.part("api", "core")
        try:
            began = time.monotonic()
            refused = elsewhere.http.get("/jobs")
            refused_after = time.monotonic() - began
        finally:
            house.network.join("api", "core")
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert refused_after < 15
        began = time.monotonic()
        eventually(lambda: elsewhere.http.get("/jobs").status_code == 200, NOTICED_SECONDS, "the API is well again")
        well_after = time.monotonic() - began
    with capsys.disabled():
        say(f"API without Postgres: refused after {refused_after:.1f} s, answered {well_after:.1f} s after the return")

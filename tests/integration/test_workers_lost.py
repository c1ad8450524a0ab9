"""Processes and messages get lost, and every accepted job still comes to its end without anybody's action."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from stack.up import Stack, running
from tests.brokers import broker_env, lose_messages, messages
from tests.client import SseEvent, User
from tests.integration.conftest import ML_TOKEN
from tests.scripted_ml import PROFILES, ScriptedMl

LEASE, SWEEP, REDISPATCH = 2.0, 0.5, 5.0
TEXT = b"some text\n"


class StallingMl(ScriptedMl):
    """Its first answer to a job does not come before ``resume``; ``stalled`` says that the job is in the POST."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.stalled, self.resume = threading.Event(), threading.Event()

    def _stalls(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if len(self.submissions(request["job_uuid"])) == 1:
            self.stalled.set()
            self.resume.wait(30)
        return self._instant(request)

    def _large(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.deliver(request)
        return self._done(request, file_size=50_000_000)


@pytest.fixture(scope="module")
def stalling() -> Iterator[StallingMl]:
    ml = StallingMl(ML_TOKEN)
    with ml:
        yield ml
        ml.resume.set()


@pytest.fixture
def ml(stalling: StallingMl) -> Iterator[StallingMl]:
    stalling.stalled.clear()
    stalling.resume.clear()
    yield stalling
    stalling.resume.set()


@pytest.fixture(scope="module")
def house(stalling: StallingMl) -> Iterator[Stack]:
    env = {
        "ML_SERVICE_URL": stalling.url,
        "ML_SERVICE_TOKEN": ML_TOKEN,
        "ML_PROFILES": f"{PROFILES},stalls,large",
        "ML_REQUEST_SECONDS": "60",
        "LEASE_SECONDS": str(LEASE),
        "SWEEP_SECONDS": str(SWEEP),
        "REDISPATCH_SECONDS": str(REDISPATCH),
        **broker_env(),
    }
    with running(only=["api", "worker", "sweeper", "beat"], env=env) as stack:
        yield stack


@pytest.fixture
def client(house: Stack) -> Iterator[User]:
    with User(house.url) as user:
        yield user


def look(house: Stack, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(house.env["DATABASE_URL"]) as connection:
        return connection.execute(query, values).fetchall()


def holder(house: Stack, job_id: str) -> int:
    """The process that holds the job."""
    ((name,),) = look(house, "SELECT claimed_by FROM jobs WHERE id = %s AND claim IS NOT NULL", job_id)
    return int(name.rpartition(":")[2])


@pytest.mark.parametrize("victim", ["the process of the step", "the whole group"])
def test_a_job_survives_the_death_of_its_worker(
    house: Stack, client: User, ml: StallingMl, capsys: pytest.CaptureFixture[str], victim: str
) -> None:
    job_id = client.order("a.txt", TEXT, profile="stalls")["id"]
    assert ml.stalled.wait(20), "the job has not come to the ML service"
    killed_at = time.monotonic()
    if victim == "the whole group":
        house.processes["worker"].kill()
    else:
        os.kill(holder(house, job_id), signal.SIGKILL)

    for event in client.events(job_id):
        if event.type == "interrupted":
            noticed = time.monotonic() - killed_at
        if event.type == "stage" and event.data["stage"] == "submit":
            taken_up = time.monotonic() - killed_at  # the last one counts
    over = time.monotonic() - killed_at
    with capsys.disabled():
        print(  # noqa: T201  # a figure to quote
            f"\n  {victim} killed: noticed {noticed:.1f} s, taken up {taken_up:.1f} s, done {over:.1f} s after it"
        )

    assert client.job(job_id)["status"] == "succeeded"
    assert noticed < LEASE + SWEEP + 1.5
    assert over < 15
    submissions = ml.submissions(job_id)
    assert len(submissions) == 2, "once before, once after"
    assert {one["idempotency_key"] for one in submissions} == {f"{job_id}:1"}, "one submission for the service"
    tried = look(house, "SELECT step, attempt, outcome FROM job_attempts WHERE job_id = %s ORDER BY id", job_id)
    assert tried.count(("submit", 1, "lost")) == 1
    assert tried.count(("submit", 1, "done")) == 1


def resumed(client: User, job_id: str, after: int, seconds: float) -> list[SseEvent]:
    """The rest of the stream, as soon as there is somebody to ask."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return list(client.events(job_id, after=after))
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the API does not come back"
            time.sleep(0.05)


def test_a_stream_is_resumed_without_gap_or_repeat_after_the_death_of_the_api(
    house: Stack, client: User, ml: StallingMl
) -> None:
    job_id = client.order("a.txt", TEXT, profile="stalls")["id"]
    seen: list[SseEvent] = []
    with suppress(httpx.TransportError):
        for event in client.events(job_id):
            seen.append(event)
            if event.type == "stage" and event.data["stage"] == "submit":
                assert ml.stalled.wait(20)
                house.processes["api"].kill()
                ml.resume.set()  # the job goes on while nobody can tell
    assert seen[-1].type == "stage", "the stream has broken off"
    numbered = [event for event in seen if event.id]
    rest = resumed(client, job_id, numbered[-1].id or 0, 20)
    numbered += [event for event in rest if event.id]
    assert [event.id for event in numbered] == list(range(1, len(numbered) + 1))
    assert numbered[-1].type == "succeeded"
    assert [event.body for event in numbered] == [event.body for event in client.events(job_id) if event.id]


def test_jobs_whose_messages_are_lost_with_everything_in_the_broker_all_finish(house: Stack, client: User) -> None:
    house.processes["worker"].stop()
    try:
        ids = [client.order(f"{n}.txt", TEXT, profile="instant")["id"] for n in range(8)]
        assert messages(house, "io") >= len(ids)
        lose_messages(house)
    finally:
        house.processes["worker"].start()
    assert {client.finished(job_id, seconds=30)["status"] for job_id in ids} == {"succeeded"}
    (doubled,) = look(
        house,
        "SELECT count(*) FROM (SELECT FROM job_attempts WHERE job_id = ANY(%s::uuid[]) AND outcome = 'done' "
        "GROUP BY job_id, step HAVING count(*) > 1) AS twice",
        ids,
    )
    assert doubled == (0,)


def test_a_result_that_comes_with_the_answer_is_parsed_without_waiting_for_the_sweep(
    house: Stack, client: User
) -> None:
    """The chain ends at the step that could have waited; the hand-over to a cpu worker needs a message of its own."""
    job_id = client.order("a.txt", TEXT, profile="large")["id"]
    at: dict[str, datetime] = {}
    for event in client.events(job_id):
        at[f"{event.type} {event.data.get('stage')}"] = datetime.fromisoformat(event.body["at"])
    gap = (at["stage parse"] - at["handed_over submit"]).total_seconds()
    assert gap < REDISPATCH / 2, f"the hand-over took {gap:.1f} s"

"""The same key at once, by two processes, and processes that die with it."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import httpx
import pytest

from stack.up import Stack
from tests.api_process import ApiProcess, api_process
from tests.client import User
from tests.keyed_requests import (
    HEADER,
    IN_FLIGHT,
    LEASE,
    Rows,
    job_with_file,
    made,
    objects,
    outcome,
    record,
    until,
)

Begin = Callable[..., "SlowUpload"]


# ---------------------------------------------------------------- in flight, by two processes


class SlowUpload:
    """An order with a file of which the last bytes are still to come."""

    def __init__(self, url: str, user: User, key: str, path: str = "/jobs") -> None:
        form = {"file": (f"{key}.txt", b"x" * 200_000)}
        whole = httpx.Request("POST", url, files=form, data={"title": key} if path == "/jobs" else {})
        body = whole.read()
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        self.connection.putrequest("POST", f"/api/v1{path}")
        for name, value in {
            "Authorization": user.http.headers["Authorization"],
            "Content-Type": whole.headers["Content-Type"],
            "Content-Length": str(len(body)),
            HEADER: key,
        }.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        self.connection.send(body[:100_000])
        self.rest = body[100_000:]

    def send_rest(self) -> None:
        self.connection.send(self.rest)

    def answer(self) -> httpx.Response:
        """Send the rest and read the answer."""
        self.send_rest()
        got = self.connection.getresponse()
        return httpx.Response(got.status, headers=list(got.headers.items()), content=got.read())


def again(user: User, key: str, path: str = "/jobs") -> httpx.Response:
    """The same order at once."""
    form = {"file": (f"{key}.txt", b"x" * 200_000)}
    data = {"title": key} if path == "/jobs" else {}
    return user.http.post(path, files=form, data=data, headers={HEADER: key})


@pytest.fixture
def slow_upload() -> Iterator[Begin]:
    with ExitStack() as connections:

        def begin(url: str, user: User, key: str, path: str = "/jobs") -> SlowUpload:
            slow = SlowUpload(url, user, key, path)
            connections.callback(slow.connection.close)
            return slow

        yield begin


def second_api(scripted: Stack) -> AbstractContextManager[ApiProcess]:
    """Another API process on the same servers."""
    return api_process(scripted.processes["api"].program.env, scripted.data_dir / "second-api.log")


def test_while_the_first_is_in_flight_the_second_waits_however_long_the_upload_takes(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, slow_upload: Begin
) -> None:
    slow = slow_upload(scripted.url, scripted_user, key)
    until(lambda: record(rows, key))
    end = time.monotonic() + LEASE * 1.5  # longer than a lease that nobody extends
    while time.monotonic() < end:
        meanwhile = again(scripted_user, key)
        assert outcome(meanwhile) == IN_FLIGHT
        assert 1 <= int(meanwhile.headers["Retry-After"]) <= LEASE
        time.sleep(0.5)
    first = slow.answer()
    assert first.status_code == 202, first.text
    second = again(scripted_user, key)
    assert (second.content, second.headers["Idempotency-Replayed"]) == (first.content, "true")
    assert made(rows, key) == 1 + 1  # the job and its file


@pytest.mark.parametrize("abandoned", [False, True], ids=["a new key", "a key whose first request died"])
def test_of_twenty_at_once_on_two_processes_one_makes_the_job(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, abandoned: bool
) -> None:
    if abandoned:
        owner = scripted_user.http.get("/auth/me").json()["id"]
        rows.execute(
            """INSERT INTO idempotency_keys (owner_id, route, key, state, claim, locked_until, expires_at)
               VALUES (%s, 'POST /api/v1/jobs', %s, 'in_flight', gen_random_uuid(), now(), now() + interval '1 day')""",
            (owner, key),
        )
    start = threading.Barrier(20)

    def send(url: str) -> httpx.Response:
        with User(url, scripted_user.http.headers["Authorization"].removeprefix("Bearer ")) as user:
            user.http.get("/auth/me").raise_for_status()  # connected, and known to that process
            start.wait()
            return job_with_file(user, key, b"a word")

    with second_api(scripted) as second, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, [scripted.url, second.url] * 10))
        last = send_until_answered(lambda: job_with_file(scripted_user, key, b"a word"))
    counted = Counter((answer.status_code, "Idempotency-Replayed" in answer.headers) for answer in answers)
    assert counted[202, False] == 1, counted
    assert counted.keys() <= {(202, False), (202, True), (409, False)}, counted
    assert {outcome(answer) for answer in answers if answer.status_code == 409} <= {IN_FLIGHT}
    assert {answer.content for answer in answers if answer.status_code == 202} == {last.content}
    assert made(rows, key) == 1


def send_until_answered(send: Callable[[], httpx.Response], seconds: float = LEASE + 3) -> httpx.Response:
    """As a client does it: after 409, again, and with the same key."""
    deadline = time.monotonic() + seconds
    while outcome(answer := send()) == IN_FLIGHT:
        assert time.monotonic() < deadline, "in flight for too long"
        time.sleep(0.1)
    return answer


# ---------------------------------------------------------------- crashes


@pytest.mark.parametrize("path", ["/jobs", "/upload"])
def test_a_process_killed_between_claim_and_commit_leaves_the_key_to_the_retry(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, path: str, slow_upload: Begin
) -> None:
    with second_api(scripted) as second:
        slow_upload(second.url, scripted_user, key, path)
        until(lambda: record(rows, key))
        second.process.kill()
        second.process.wait()
    killed = time.monotonic()
    assert outcome(again(scripted_user, key, path)) == IN_FLIGHT
    retried = send_until_answered(lambda: again(scripted_user, key, path))
    assert retried.is_success, retried.text
    assert "Idempotency-Replayed" not in retried.headers
    assert time.monotonic() - killed < LEASE + 2
    assert again(scripted_user, key, path).content == retried.content
    assert made(rows, key) == (2 if path == "/jobs" else 1)


def test_an_answer_that_was_lost_after_the_commit_is_given_by_the_retry(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, slow_upload: Begin
) -> None:
    with second_api(scripted) as second:
        slow = slow_upload(second.url, scripted_user, key)
        slow.send_rest()
        until(lambda: (record(rows, key) or {}).get("state") == "done")
        second.process.kill()
        second.process.wait()
    (job,) = rows.execute("SELECT id FROM jobs WHERE title = %s", (key,)).fetchall()
    retried = again(scripted_user, key)
    assert (retried.status_code, retried.json()["id"]) == (202, str(job["id"]))
    assert retried.headers["Idempotency-Replayed"] == "true"
    assert retried.headers["Location"].endswith(str(job["id"]))
    assert scripted_user.finished(str(job["id"]))["status"] == "succeeded"
    assert made(rows, key) == 2


def test_a_client_that_is_cut_off_may_try_again_at_once(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, slow_upload: Begin
) -> None:
    slow = slow_upload(scripted.url, scripted_user, key)
    until(lambda: record(rows, key))
    slow.connection.close()
    until(lambda: record(rows, key) is None)  # given back: a lease that has run out leaves its record
    assert again(scripted_user, key).status_code == 202
    assert made(rows, key) == 2


@pytest.mark.parametrize("path", ["/jobs", "/upload"])
def test_a_request_whose_key_was_taken_over_commits_nothing(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, path: str, slow_upload: Begin
) -> None:
    stored = objects(scripted)
    slow = slow_upload(scripted.url, scripted_user, key, path)
    until(lambda: record(rows, key))
    # it was silent for longer than its lease, and another has come and is at it
    rows.execute("UPDATE idempotency_keys SET claim = gen_random_uuid() WHERE key = %s", (key,))
    late = slow.answer()
    assert outcome(late) == IN_FLIGHT
    assert int(late.headers["Retry-After"]) >= 1
    assert made(rows, key) == 0
    assert objects(scripted) <= stored
    kept = record(rows, key)
    assert kept is not None, "the other's claim stands"
    assert kept["state"] == "in_flight"


def test_a_lease_that_ran_out_unnoticed_does_no_harm(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, slow_upload: Begin
) -> None:
    slow = slow_upload(scripted.url, scripted_user, key)
    until(lambda: record(rows, key))
    rows.execute("UPDATE idempotency_keys SET locked_until = now() - interval '1 hour' WHERE key = %s", (key,))
    first = slow.answer()
    assert first.status_code == 202
    assert again(scripted_user, key).content == first.content

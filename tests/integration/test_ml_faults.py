"""An ML service that is down, overloaded, silent, or lied about: jobs wait, end with a name, and are done once.

A stack of its own with short times; the service is the scripted one, a real server.
"""

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from domain import signatures
from stack.up import Stack, running
from tests.client import User
from tests.integration.conftest import ML_TOKEN
from tests.integration.test_failures import ends_as
from tests.scripted_ml import CSV, PROFILES, ScriptedMl

TEXT = b"some text\n" * 30
SECRET = "whsec_" + base64.b64encode(b"a key of the tests with 32 bytes").decode()
FAILURES, CIRCUIT_SECONDS, GIVE_UP_SECONDS, MAX_WAIT_SECONDS, ATTEMPTS = 3, 0.8, 14.0, 4.0, 6


@pytest.fixture(scope="module")
def ml() -> Iterator[ScriptedMl]:
    with ScriptedMl(ML_TOKEN) as ml:
        yield ml


@pytest.fixture(scope="module")
def faulty(ml: ScriptedMl) -> Iterator[Stack]:
    env = {
        "ML_SERVICE_URL": ml.url,
        "ML_SERVICE_TOKEN": ML_TOKEN,
        "ML_PROFILES": PROFILES,
        "ML_SIGNING_SECRET": SECRET,
        "ML_REQUEST_SECONDS": "1",
        "ML_DEADLINE_SECONDS": "1",
        "ML_MAX_WAIT_SECONDS": str(MAX_WAIT_SECONDS),
        "ML_CIRCUIT_FAILURES": str(FAILURES),
        "ML_CIRCUIT_SECONDS": str(CIRCUIT_SECONDS),
        "ML_GIVE_UP_SECONDS": str(GIVE_UP_SECONDS),
        "RETRY_ATTEMPTS": str(ATTEMPTS),
        "RETRY_BASE_SECONDS": "0.2",
        "SWEEP_SECONDS": "0.3",
        "LEASE_SECONDS": "3",
        "LOG_FORMAT": "json",
    }
    with running(env=env, only=["api", "worker", "sweeper", "beat"]) as stack:
        yield stack


@pytest.fixture
def database(faulty: Stack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    url = faulty.env["DATABASE_URL"]
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row, autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def all_is_well(ml: ScriptedMl, database: psycopg.Connection[dict[str, Any]]) -> Iterator[None]:
    """The circuit of the test before does not matter."""
    database.execute("DELETE FROM circuits")
    yield
    ml.outage = None


@pytest.fixture
def user(faulty: Stack) -> Iterator[User]:
    with User(faulty.url) as user:
        yield user


def until(reached: Callable[[], Any], otherwise: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def order(user: User, profile: str) -> str:
    job_id: str = user.order("a.txt", TEXT, profile=profile)["id"]
    return job_id


def types(user: User, job_id: str) -> list[str]:
    return [event.type for event in user.events(job_id) if event.id is not None]


# ---------------------------------------------------------------- down


@pytest.mark.parametrize("how", ["refuses", "answers 503", "answers 500"])
def test_while_the_service_is_down_jobs_wait_and_no_attempt_is_burnt(
    user: User, ml: ScriptedMl, database: psycopg.Connection[dict[str, Any]], how: str
) -> None:
    def suffer() -> list[str]:
        jobs = [order(user, "instant") for _ in range(10)]
        until(lambda: database.execute("SELECT 1 FROM circuits WHERE probes >= 2").fetchone(), "no probe has failed")
        assert {user.job(job_id)["status"] for job_id in jobs} == {"processing"}
        return jobs

    before = len(ml.requests)
    if how == "refuses":
        with ml.gone():
            jobs = suffer()
    else:
        ml.outage = (int(how.split()[1]), {}, b"")
        jobs = suffer()
        tried = len(ml.requests) - before
        # a worker each may be in mid-request when it opens; then one probe after the other
        assert tried <= FAILURES + 2 + 4, "the service is left alone"
        ml.outage = None
    for job_id in jobs:
        job = user.finished(job_id)
        assert job["status"] == "succeeded", job
        said = types(user, job_id)
        assert said.count("retrying") < FAILURES
        assert said.count("postponed") <= 4, "one word about waiting, however long it lasts"
    assert any("postponed" in types(user, job_id) for job_id in jobs)
    accepted = [request["idempotency_key"] for request in ml.requests[before:]]
    assert {key.split(":")[0] for key in accepted} == set(jobs)


def test_what_waited_too_long_is_given_up(user: User, ml: ScriptedMl) -> None:
    ml.outage = (503, {}, b"")
    began = time.monotonic()
    jobs = [order(user, "instant") for _ in range(4)]
    for job_id in jobs:
        ends_as(user, {"id": job_id}, "ml_unavailable", "submit", retryable=True)
    assert time.monotonic() - began >= GIVE_UP_SECONDS


def test_a_job_put_off_is_told_and_can_be_cancelled(user: User, ml: ScriptedMl) -> None:
    ml.outage = (503, {}, b"")
    jobs = [order(user, "instant") for _ in range(4)]
    until(lambda: all("again" in (user.job(job_id)["message"] or "") for job_id in jobs), "they are not told")
    job = user.job(jobs[0])
    assert (job["status"], job["stage"], job["error"]) == ("processing", "submit", None)
    assert user.http.post(f"/jobs/{jobs[0]}/cancel").status_code == 202
    assert user.finished(jobs[0])["status"] == "cancelled"


def test_asking_for_patience_costs_no_attempt(user: User, ml: ScriptedMl) -> None:
    job = user.finished(order(user, "overloaded"))
    assert job["status"] == "succeeded", job
    submissions = ml.submissions(job["id"])
    assert len(submissions) > ATTEMPTS
    assert {request["idempotency_key"] for request in submissions} == {f"{job['id']}:1"}
    attempts = user.http.get(f"/jobs/{job['id']}/attempts").json()["items"]
    put_off = [attempt for attempt in attempts if attempt["outcome"] == "postponed"]
    assert len(put_off) >= FAILURES
    assert all(attempt["error"]["code"] == "ml_unavailable" for attempt in put_off)


def test_one_job_that_fails_among_others_that_succeed_uses_up_its_attempts(user: User, ml: ScriptedMl) -> None:
    bad = order(user, "error500")
    deadline = time.monotonic() + 30
    while user.job(bad)["status"] == "processing" and time.monotonic() < deadline:
        user.finished(order(user, "instant"))
    ends_as(user, {"id": bad}, "ml_unavailable", "submit", retryable=True)
    assert len(ml.submissions(bad)) <= ATTEMPTS + 2


def test_an_answer_that_drips_holds_nobody_up(user: User) -> None:
    job_id = order(user, "drips")
    until(lambda: user.job(job_id)["stage"] == "waiting", "it was accepted", seconds=3)


# ---------------------------------------------------------------- silent


def test_a_service_that_has_finished_without_a_word_is_asked(user: User, ml: ScriptedMl) -> None:
    job = user.finished(order(user, "quietly_done"))
    assert (job["status"], job["result"]) == ("succeeded", {"name": "quiet.csv", "size": len(CSV)})
    assert ml.asked.count(job["id"]) == 1
    assert len(ml.submissions(job["id"])) == 1
    (request,) = ml.submissions(job["id"])
    assert ml.complete(request, status="succeeded") == 200, "its call comes after all"
    assert ml.complete(request, status="failed") == 409


def test_a_service_that_has_failed_without_a_word_is_asked(user: User) -> None:
    job = ends_as(user, {"id": order(user, "quietly_failed")}, "ml_failed", "ask")
    assert "upside down" in job["error"]["message"]


def test_a_status_may_name_no_object_elsewhere(user: User) -> None:
    ends_as(user, {"id": order(user, "quietly_elsewhere")}, "ml_protocol_error", "ask")


def test_a_service_that_is_still_at_it_gets_more_time(user: User, ml: ScriptedMl) -> None:
    job = user.finished(order(user, "long_at_it"))
    assert job["status"] == "succeeded", job
    assert ml.asked.count(job["id"]) == 3
    assert types(user, job["id"]).count("waiting") == 3


def test_but_not_for_ever(user: User, ml: ScriptedMl) -> None:
    began = time.monotonic()
    job = ends_as(user, {"id": order(user, "at_it")}, "ml_timeout", "ask", retryable=True)
    assert MAX_WAIT_SECONDS <= time.monotonic() - began < MAX_WAIT_SECONDS + 6
    assert ml.asked.count(job["id"]) >= 3


@pytest.mark.parametrize("profile", ["silent", "mute"])
def test_a_service_that_cannot_be_asked_has_timed_out(user: User, profile: str) -> None:
    ends_as(user, {"id": order(user, profile)}, "ml_timeout", "ask", retryable=True)


def test_a_service_that_has_forgotten_the_job_is_given_it_again(user: User, ml: ScriptedMl) -> None:
    job = user.finished(order(user, "forgets"))
    assert job["status"] == "succeeded", job
    assert len(ml.submissions(job["id"])) == 2
    assert types(user, job["id"]).count("waiting") == 2


def test_but_one_that_forgets_it_again_and_again_has_timed_out(user: User, ml: ScriptedMl) -> None:
    job = ends_as(user, {"id": order(user, "forgets_always")}, "ml_timeout", "ask", retryable=True)
    assert len(ml.submissions(job["id"])) > 2


def test_an_accepted_job_whose_service_went_down_times_out_in_the_end(user: User, ml: ScriptedMl) -> None:
    job_id = order(user, "at_it")
    until(lambda: user.job(job_id)["stage"] == "waiting", "it was not accepted")
    with ml.gone():
        ends_as(user, {"id": job_id}, "ml_timeout", "ask", retryable=True)


# ---------------------------------------------------------------- cancelled


def test_the_service_is_told_of_a_cancelled_job_and_its_completion_is_refused(user: User, ml: ScriptedMl) -> None:
    job_id = order(user, "at_it")
    until(lambda: user.job(job_id)["stage"] == "waiting", "it was not accepted")
    assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert user.finished(job_id)["status"] == "cancelled"
    until(lambda: job_id in ml.cancelled, "the service was not told")
    (request,) = ml.submissions(job_id)
    assert ml.complete(request, status="succeeded") == 409


def test_the_service_is_told_of_a_deleted_job_and_its_completion_finds_nothing(user: User, ml: ScriptedMl) -> None:
    job_id = order(user, "at_it")
    until(lambda: user.job(job_id)["stage"] == "waiting", "it was not accepted")
    assert user.http.delete(f"/jobs/{job_id}").status_code == 204
    until(lambda: job_id in ml.cancelled, "the service was not told")
    assert ml.complete(ml.submissions(job_id)[0], status="succeeded") == 404


def test_a_service_that_is_down_is_not_told_and_nobody_waits(user: User, ml: ScriptedMl) -> None:
    job_id = order(user, "at_it")
    until(lambda: user.job(job_id)["stage"] == "waiting", "it was not accepted")
    with ml.gone():
        began = time.monotonic()
        assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
        assert user.finished(job_id)["status"] == "cancelled"
        assert time.monotonic() - began < 2


# ---------------------------------------------------------------- signed


def call(stack: Stack, job_id: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    url = f"{stack.url}/api/v1/internal/jobs/{job_id}/completion"
    return httpx.post(url, content=body, headers={"Content-Type": "application/json", **headers})


def signed(body: bytes, *, secret: str = SECRET, age: float = 0, message_id: str = "") -> dict[str, str]:
    return signatures.sign(signatures.key_of(secret), message_id or f"msg_{uuid4().hex}", int(time.time() - age), body)


DONE = b'{"status": "succeeded"}'
FORGED = "whsec_" + base64.b64encode(b"a key of somebody else, 32 bytes").decode()


@pytest.fixture
def accepted(user: User, ml: ScriptedMl) -> str:
    """A job that waits, with its result where it belongs."""
    job_id = order(user, "at_it")
    until(lambda: user.job(job_id)["stage"] == "waiting", "it was not accepted")
    ml.deliver(ml.submissions(job_id)[0])
    return job_id


def test_a_signed_completion_needs_no_token_and_may_be_repeated(faulty: Stack, user: User, accepted: str) -> None:
    headers = signed(DONE)
    assert call(faulty, accepted, DONE, headers).status_code == 200
    assert user.finished(accepted)["status"] == "succeeded"
    before = types(user, accepted)
    assert call(faulty, accepted, DONE, headers).status_code == 200, "the same message again"
    assert types(user, accepted) == before


def test_one_good_signature_among_several_is_enough(faulty: Stack, accepted: str) -> None:
    headers = signed(DONE)
    headers["webhook-signature"] = f"v1a,AAAA v1,AAAA {headers['webhook-signature']}"
    assert call(faulty, accepted, DONE, {**headers, "Authorization": "Bearer wrong"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        signed(DONE, secret=FORGED),
        signed(DONE + b" "),
        {**signed(DONE), "webhook-id": "another"},
        {"webhook-signature": "v1,"},
        {**signed(DONE, secret=FORGED), "Authorization": f"Bearer {ML_TOKEN}"},
        {},
    ],
    ids=["forged", "another body", "another id", "no rest", "forged with the token", "nothing"],
)
def test_a_forged_completion_is_refused_and_changes_nothing(
    faulty: Stack, user: User, accepted: str, headers: dict[str, str]
) -> None:
    answer = call(faulty, accepted, DONE, headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert user.job(accepted)["status"] == "processing"


def test_a_signature_made_for_another_job_is_noticed_where_the_body_names_it(faulty: Stack, accepted: str) -> None:
    body = json.dumps({"status": "succeeded", "job_uuid": str(uuid4())}).encode()
    assert call(faulty, accepted, body, signed(body)).status_code == 422
    body = json.dumps({"status": "succeeded", "job_uuid": accepted}).encode()
    assert call(faulty, accepted, body, signed(body)).status_code == 200


@pytest.mark.parametrize("age", [301, 86400, -400], ids=["old", "very old", "of the future"])
def test_an_old_signature_is_refused(faulty: Stack, accepted: str, age: float) -> None:
    assert call(faulty, accepted, DONE, signed(DONE, age=age)).status_code == 401


def test_the_token_alone_goes_on_working(faulty: Stack, accepted: str) -> None:
    assert call(faulty, accepted, DONE, {"Authorization": f"Bearer {ML_TOKEN}"}).status_code == 200


def test_without_a_secret_a_signature_alone_is_refused(scripted: Stack) -> None:
    for secret in (SECRET, "whsec_" + base64.b64encode(bytes(24)).decode()):
        assert call(scripted, str(uuid4()), DONE, signed(DONE, secret=secret)).status_code == 401


@pytest.mark.parametrize("name", ["token", "signature"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_of_100_mb_is_refused_without_being_read(faulty: Stack, name: str, framing: str) -> None:
    proof = {"Authorization": f"Bearer {ML_TOKEN}"} if name == "token" else signed(DONE)
    status, sent, seconds = pour(faulty, 100 * 1024**2, framing, proof)
    assert status == 413
    assert sent < 20 * 1024**2, "what fits into buffers on the way, not more"
    assert seconds < 5


def pour(stack: Stack, size: int, framing: str, headers: dict[str, str]) -> tuple[int, int, float]:
    """(status, bytes sent until the answer came or the connection ended, seconds)."""
    address = httpx.URL(stack.url)
    length = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    lines = [
        f"POST /api/v1/internal/jobs/{uuid4()}/completion HTTP/1.1",
        f"Host: {address.host}",
        "Content-Type: application/json",
        length,
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    piece = b" " * 65536
    unit = piece if framing == "length" else b"10000\r\n" + piece + b"\r\n"
    began, sent = time.monotonic(), 0
    with socket.create_connection((address.host, address.port or 80)) as connection:
        connection.settimeout(2)
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        while sent < size and not received:
            try:
                connection.sendall(unit)
                sent += len(piece)
                connection.setblocking(False)
                try:
                    received = connection.recv(4096)
                except BlockingIOError:
                    continue
                finally:
                    connection.settimeout(2)
            except OSError:  # it does not take any more
                break
        if not received:
            received = connection.recv(4096)
    return int(received.split()[1]), sent, time.monotonic() - began


@pytest.mark.parametrize(
    "body",
    [
        {"status": "succeeded", "file_size": 2**60},
        {"status": "succeeded", "file_size": -1},
        {"status": "succeeded", "file_name": "\u0000\u202e/../x"},
        {"status": "failed", "error": "nul \u0000 and \ud800"},
    ],
    ids=["huge size", "negative size", "strange name", "strange error"],
)
def test_strange_words_are_taken_or_refused_but_break_nothing(faulty: Stack, accepted: str, body: Any) -> None:
    encoded = json.dumps(body).encode()
    assert call(faulty, accepted, encoded, signed(encoded)).status_code in (200, 400, 422)

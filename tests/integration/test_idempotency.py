"""`Idempotency-Key`: sent again, answered again, done once; over HTTP, with processes that die and two that compete."""

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy import create_engine, text

from stack.up import Stack
from storage import idempotency
from tests.api_process import ApiProcess, api_process
from tests.client import User

Rows = psycopg.Connection[dict[str, Any]]
Send = Callable[[User, str, bytes], httpx.Response]
Begin = Callable[..., "SlowUpload"]

LEASE = 3.0  # of the stack `scripted`
DAY = timedelta(days=1)
HEADER = "Idempotency-Key"


@pytest.fixture
def key() -> str:
    return str(uuid4())


def job_with_file(user: User, key: str, word: bytes, **fields: str) -> httpx.Response:
    files = {"file": ("a.txt", word)}
    return user.http.post("/jobs", files=files, data={"title": key, **fields}, headers={HEADER: key})


def job_as_json(user: User, key: str, word: bytes) -> httpx.Response:
    return user.http.post("/jobs", json={"title": key, "description": word.decode()}, headers={HEADER: key})


def upload_form(user: User, key: str, word: bytes) -> httpx.Response:
    return user.http.post("/upload", files={"file": (f"{key}.txt", word)}, headers={HEADER: key})


def upload_body(user: User, key: str, word: bytes) -> httpx.Response:
    return user.http.post(f"/upload?name={key}.txt", content=word, headers={HEADER: key})


def put_body(user: User, key: str, word: bytes) -> httpx.Response:
    return user.http.put(f"/upload?name={key}.txt", content=word, headers={HEADER: key})


def registration(user: User, key: str, word: bytes) -> httpx.Response:
    account = {"username": f"idem-{key[:13]}", "password": f"a password and {word.decode()}"}
    return user.http.post("/auth/register", json=account, headers={HEADER: key})


SENDS = [job_with_file, job_as_json, upload_form, upload_body, put_body, registration]
every_way = pytest.mark.parametrize("send", SENDS, ids=[send.__name__ for send in SENDS])


def made(rows: Rows, key: str) -> int:
    """How many jobs, files or accounts there are because of requests with that key."""
    found = rows.execute(
        """SELECT (SELECT count(*) FROM jobs WHERE title = %(key)s)
                + (SELECT count(*) FROM files WHERE name = %(key)s || '.txt')
                + (SELECT count(*) FROM accounts WHERE username = 'idem-' || left(%(key)s, 13)) AS made""",
        {"key": key},
    ).fetchone()
    assert found is not None
    return int(found["made"])


def record(rows: Rows, key: str) -> dict[str, Any] | None:
    return rows.execute("SELECT * FROM idempotency_keys WHERE key = %s", (key,)).fetchone()


def objects(stack: Stack) -> set[Path]:
    return {path for path in (stack.data_dir / "s3" / "millrace" / "inputs").rglob("*") if path.is_file()}


def until(what: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return found


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


MISMATCH = 422, "idempotency_mismatch"
IN_FLIGHT = 409, "idempotency_in_flight"


# ---------------------------------------------------------------- the same again


@every_way
def test_the_same_request_again_gets_the_first_answer(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, send: Send
) -> None:
    first = send(scripted_user, key, b"a word")
    assert first.is_success, first.text
    assert "Idempotency-Replayed" not in first.headers
    stored = objects(scripted)
    assert stored or send in (job_as_json, registration)
    second = send(scripted_user, key, b"a word")
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    for name in ("Location", "Content-Type", "Content-Length"):
        assert second.headers[name] == first.headers[name]
    assert made(rows, key) == 1
    assert objects(scripted) <= stored


@every_way
def test_another_body_is_refused_and_does_nothing(
    scripted: Stack, scripted_user: User, rows: Rows, key: str, send: Send
) -> None:
    assert send(scripted_user, key, b"a word").is_success
    stored = objects(scripted)
    other = send(scripted_user, key, b"a w0rd")  # as long as the first: the length is no proof
    assert outcome(other) == MISMATCH
    assert other.json()["field"] == HEADER
    assert made(rows, key) == 1
    assert objects(scripted) <= stored
    assert send(scripted_user, key, b"a word").headers["Idempotency-Replayed"] == "true"


def test_a_form_is_the_same_whatever_its_order_and_boundary(scripted_user: User, key: str) -> None:
    def send(*parts: tuple[str, Any]) -> httpx.Response:
        return scripted_user.http.post("/jobs", files=parts, headers={HEADER: key})

    title, file = ("title", (None, "t")), ("file", ("a.txt", b"content"))
    first = send(title, file)
    assert first.status_code == 202, first.text
    assert send(file, title).content == first.content
    for changed in (
        [("title", (None, "T")), file],
        [title, file, ("description", (None, "d"))],
        [title, ("file", ("b.txt", b"content"))],
        [title, ("file", ("a.txt", b"CONTENT"))],
        [title],
    ):
        assert outcome(send(*changed)) == MISMATCH, changed


def test_a_large_file_is_compared_by_its_content_and_not_stored_again(
    scripted: Stack, scripted_user: User, rows: Rows, key: str
) -> None:
    content = os.urandom(6 * 1024**2)
    first = upload_form(scripted_user, key, content)
    assert first.status_code == 201
    stored = objects(scripted)
    assert upload_form(scripted_user, key, content).content == first.content
    assert outcome(upload_form(scripted_user, key, content[:-1] + b"!")) == MISMATCH
    assert objects(scripted) <= stored
    assert made(rows, key) == 1


# ---------------------------------------------------------------- whose and where


def test_the_same_key_of_another_owner_is_another_key(scripted: Stack, scripted_user: User, key: str) -> None:
    with User(scripted.url) as other:
        answers = [job_as_json(user, key, b"w") for user in (scripted_user, other)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] != answers[1].json()["id"]
    assert not any("Idempotency-Replayed" in answer.headers for answer in answers)


def test_the_same_key_on_another_route_or_method_is_another_key(scripted_user: User, key: str) -> None:
    answers = [send(scripted_user, key, b"w") for send in (upload_body, put_body, job_as_json)]
    assert [answer.status_code for answer in answers] == [201, 201, 202]
    assert len({answer.json()["id"] for answer in answers}) == 3


def test_a_job_is_run_again_once_for_a_key_and_another_job_with_the_same_key_too(
    scripted_user: User, rows: Rows, key: str
) -> None:
    jobs = [scripted_user.order("a.txt", b"content")["id"] for _ in range(2)]
    for job in jobs:
        scripted_user.finished(job)
    reruns = [
        scripted_user.http.post(f"/jobs/{job}/retry", headers={HEADER: key}).raise_for_status()
        for job in (jobs[0], jobs[0], jobs[1])
    ]
    assert reruns[0].content == reruns[1].content
    assert reruns[1].headers["Idempotency-Replayed"] == "true"
    assert [rerun.json()["parent_id"] for rerun in reruns] == [jobs[0], jobs[0], jobs[1]]
    found = rows.execute("SELECT parent_id FROM jobs WHERE parent_id = ANY(%s::uuid[])", (jobs,)).fetchall()
    assert len(found) == 2


# ---------------------------------------------------------------- what is a key


@pytest.mark.parametrize("bad", ["", "two words", "x" * 256, '"open', "ключ", '""', '"' + "x" * 256 + '"', "a\tb"])
def test_what_is_not_a_key_is_refused_by_the_headers_name(scripted_user: User, bad: str) -> None:
    answer = scripted_user.http.post("/jobs", json={}, headers={HEADER: bad.encode()})
    assert outcome(answer) == (422, "invalid")
    assert answer.json()["field"] == HEADER
    assert HEADER in answer.json()["detail"]


def test_two_keys_are_none(scripted_user: User) -> None:
    answer = scripted_user.http.post("/jobs", json={}, headers=[(HEADER, "a-key"), (HEADER, "another")])
    assert (outcome(answer), answer.json()["field"]) == ((422, "invalid"), HEADER)


@pytest.mark.parametrize("good", ["x", "x" * 255, "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", r"back\slash"])
def test_any_visible_ascii_is_a_key(scripted_user: User, good: str) -> None:
    first, second = (job_as_json(scripted_user, good, b"w") for _ in range(2))
    assert first.status_code == 202
    assert second.content == first.content


def test_in_double_quotes_as_the_draft_writes_it_a_key_is_the_same(scripted_user: User, key: str) -> None:
    first = scripted_user.http.post("/jobs", json={}, headers={HEADER: f'{key}\\"'})
    second = scripted_user.http.post("/jobs", json={}, headers={HEADER: f'"{key}\\\\\\""'})
    assert first.status_code == 202
    assert (second.content, second.headers["Idempotency-Replayed"]) == (first.content, "true")


def test_without_a_key_every_request_is_a_new_one(scripted_user: User) -> None:
    answers = [scripted_user.http.post("/jobs", json={"title": "t"}) for _ in range(2)]
    assert answers[0].json()["id"] != answers[1].json()["id"]


# ---------------------------------------------------------------- refusals


def bad_field(user: User, key: str, more: bytes) -> httpx.Response:
    return job_with_file(user, key, b"w" + more, threshold="7")


def bad_json(user: User, key: str, more: bytes) -> httpx.Response:
    headers = {HEADER: key, "Content-Type": "application/json"}
    return user.http.post("/jobs", content=b"{" + more, headers=headers)


def bad_form(user: User, key: str, more: bytes) -> httpx.Response:
    headers = {HEADER: key, "Content-Type": "multipart/form-data; boundary=b"}
    return user.http.post("/jobs", content=b"--b\r\nno header\r\n\r\n" + more, headers=headers)


def no_file(user: User, key: str, more: bytes) -> httpx.Response:
    return user.http.post("/upload", files={"note": (None, b"n" + more)}, headers={HEADER: key})


def too_large(user: User, key: str, more: bytes) -> httpx.Response:
    return upload_body(user, key, b"x" * (9 * 1024**2) + more)


def wrong_media(user: User, key: str, more: bytes) -> httpx.Response:
    urlencoded = "application/x-www-form-urlencoded"
    return user.http.post("/jobs", content=b"text" + more, headers={HEADER: key, "Content-Type": urlencoded})


REFUSED: list[tuple[Send, int]] = [
    (bad_field, 422),
    (bad_json, 400),
    (bad_form, 400),
    (no_file, 422),
    (too_large, 413),
    (wrong_media, 415),
]


@pytest.mark.parametrize(("send", "status"), REFUSED, ids=[send.__name__ for send, _ in REFUSED])
def test_a_body_that_was_refused_is_refused_again_in_the_same_words(
    scripted_user: User, key: str, send: Send, status: int
) -> None:
    first = send(scripted_user, key, b"")
    assert first.status_code == status, first.text
    second = send(scripted_user, key, b"")
    assert (second.status_code, second.content) == (status, first.content)
    assert second.headers["Idempotency-Replayed"] == "true"
    for name in ("Content-Type", "Content-Language"):
        assert second.headers[name] == first.headers[name]
    assert outcome(send(scripted_user, key, b"more")) == MISMATCH


def test_a_refused_body_that_is_put_right_needs_a_new_key(scripted_user: User, key: str) -> None:
    assert bad_field(scripted_user, key, b"").status_code == 422
    assert outcome(job_with_file(scripted_user, key, b"w")) == MISMATCH
    assert wrong_media(scripted_user, key + "-2", b"").status_code == 415
    assert outcome(job_as_json(scripted_user, key + "-2", b"w")) == MISMATCH


def test_a_missing_token_a_missing_file_and_a_taken_name_leave_the_key_free(
    scripted_user: User, rows: Rows, key: str
) -> None:
    token = scripted_user.http.headers.pop("Authorization")
    assert job_as_json(scripted_user, key, b"w").status_code == 401
    scripted_user.http.headers["Authorization"] = token
    headers = {HEADER: key}
    assert scripted_user.http.post("/jobs", json={"filename": "none.txt"}, headers=headers).status_code == 404
    assert record(rows, key) is None
    assert job_as_json(scripted_user, key, b"w").status_code == 202
    assert registration(scripted_user, key, b"w").status_code == 201
    account = {"username": f"idem-{key[:13]}", "password": "a password and w"}
    for _ in range(2):
        again = scripted_user.http.post("/auth/register", json=account, headers={HEADER: key + "-2"})
        assert outcome(again) == (409, "already_taken")
        assert "Idempotency-Replayed" not in again.headers


def test_a_store_that_is_away_leaves_the_key_free(scripted: Stack, scripted_user: User, rows: Rows, key: str) -> None:
    s3 = scripted.processes["s3"]
    s3.stop()
    try:
        assert outcome(upload_form(scripted_user, key, b"w")) == (503, "storage_unavailable")
        assert record(rows, key) is None
    finally:
        s3.start()
    until(lambda: upload_form(scripted_user, key, b"w").status_code == 201)
    assert made(rows, key) == 1


def test_a_password_cannot_be_tried_on_what_is_kept(scripted_user: User, rows: Rows, key: str) -> None:
    assert registration(scripted_user, key, b"w").status_code == 201
    kept = record(rows, key)
    assert kept is not None
    sent = registration(scripted_user, key, b"w").request.content
    assert b"password" in sent
    assert kept["fingerprint"] != idempotency_of(sent)
    assert b"a password" not in kept["body"]


def idempotency_of(body: bytes) -> bytes:
    from api.idempotency import fingerprint

    return fingerprint(body)


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
    until(lambda: record(rows, key) is None, LEASE / 2)
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


# ---------------------------------------------------------------- how long it is kept


@every_way
def test_an_expired_key_is_a_new_one(scripted_user: User, rows: Rows, key: str, send: Send) -> None:
    first = send(scripted_user, key, b"a word")
    kept = record(rows, key)
    assert kept is not None
    assert kept["expires_at"] - kept["created_at"] >= DAY
    rows.execute("UPDATE idempotency_keys SET expires_at = now() WHERE key = %s", (key,))
    second = send(scripted_user, key, b"another word")
    assert "Idempotency-Replayed" not in second.headers
    if send is registration:
        assert outcome(second) == (409, "already_taken")
    else:
        assert second.is_success
        assert second.json()["id"] != first.json()["id"]
        assert made(rows, key) == 2


def test_what_is_expired_is_removed_in_batches_and_nothing_else(scripted: Stack, rows: Rows) -> None:
    rows.execute("DELETE FROM idempotency_keys")
    ages = {f"old-{n}": ("done", None, -n) for n in range(1, 6)}
    ages |= {"old-abandoned": ("in_flight", -9, -7), "kept": ("done", None, 60), "long": ("in_flight", 3, -8)}
    for key, (state, locked, expires) in ages.items():
        done = state == "done"
        rows.execute(
            """INSERT INTO idempotency_keys (owner_id, route, key, state, claim, locked_until, expires_at, fingerprint,
                                             status_code, headers, body)
               VALUES (gen_random_uuid(), 'POST /', %s, %s, gen_random_uuid(), now() + make_interval(secs => %s),
                       now() + make_interval(secs => %s), %s, %s, %s, %s)""",
            (key, state, locked, expires, *((b"", 202, "{}", b"") if done else (None,) * 4)),
        )
    url = scripted.env["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    database = create_engine(url)
    try:
        with database.begin() as holding, database.begin() as connection:
            holding.execute(text("SELECT 1 FROM idempotency_keys WHERE key = 'old-1' FOR UPDATE"))
            removed = [idempotency.remove_expired(connection, 2) for _ in range(4)]
        with database.begin() as connection:
            removed.append(idempotency.remove_expired(connection, 2))
    finally:
        database.dispose()
    assert removed == [2, 2, 1, 0, 1], "the locked one is passed over, and comes later"
    left = rows.execute("SELECT key FROM idempotency_keys").fetchall()
    assert {row["key"] for row in left} == {"kept", "long"}

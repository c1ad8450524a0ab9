"""`Idempotency-Key`: sent again, answered again, done once; whose a key is, and how long."""

import os
from datetime import timedelta
from typing import Any

import httpx
from sqlalchemy import create_engine, text

from stack.up import Stack
from storage import idempotency
from tests.client import User
from tests.keyed_requests import (
    HEADER,
    MISMATCH,
    Rows,
    Send,
    every_way,
    job_as_json,
    made,
    objects,
    outcome,
    put_body,
    record,
    registration,
    upload_body,
    upload_form,
)

DAY = timedelta(days=1)


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

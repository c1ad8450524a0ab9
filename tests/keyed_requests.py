"""Requests with an `Idempotency-Key` by every way there is, and what has become of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from stack.up import Stack
from tests.client import User

Rows = psycopg.Connection[dict[str, Any]]
Send = Callable[[User, str, bytes], httpx.Response]

LEASE = 3.0  # of the stack `scripted`
HEADER = "Idempotency-Key"


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


def until(what: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return found


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


MISMATCH = 422, "idempotency_mismatch"
IN_FLIGHT = 409, "idempotency_in_flight"

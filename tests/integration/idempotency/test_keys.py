"""What is a key, and what becomes of one whose request was refused."""

import httpx
import pytest

from stack.up import Stack
from tests.client import User
from tests.keyed_requests import (
    HEADER,
    MISMATCH,
    Rows,
    Send,
    job_as_json,
    job_with_file,
    made,
    outcome,
    record,
    registration,
    until,
    upload_body,
    upload_form,
)

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

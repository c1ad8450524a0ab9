"""Uploads straight to the object storage: a file only when every byte is there and is what was announced."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from stack.up import Stack, running
from storage import objects
from tests.client import User
from tests.own_settings import settings_of
from workers import direct

MIB = 1024**2
PART = 5 * MIB
DATA = b"PK\x03\x04" + os.urandom(2 * PART + 1000)
SHA256 = hashlib.sha256(DATA).hexdigest()

Refused = tuple[int, str]


@pytest.fixture(scope="module")
def api() -> Iterator[Stack]:
    env = {"MAX_UPLOAD_BYTES": str(32 * MIB), "OWNER_UPLOADS_AT_ONCE": "3"}
    with running(only=["api"], env=env) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture
def user(api: Stack) -> Iterator[User]:
    with User(api.url) as user:
        yield user


@pytest.fixture
def rows(api: Stack) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(api.env["DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def nothing_is_left(api: Stack) -> Iterator[None]:
    """After a test the storage holds what files name, and nothing else but what is under way."""
    yield
    with psycopg.connect(api.env["DATABASE_URL"]) as connection:
        named = {key for (key,) in connection.execute("SELECT object_key FROM files")}
        under_way = {upload_id for (upload_id,) in connection.execute("SELECT upload_id FROM direct_uploads")}
    assert set(objects.below("")) == named
    assert {upload_id for _, upload_id in objects.unfinished()} == under_way


def begin(user: User, size: int = len(DATA), **more: Any) -> dict[str, Any]:
    answer = user.http.post("/uploads/direct", json={"name": "снимки.zip", "size": size, "part_size": PART, **more})
    assert answer.status_code == 201, answer.text
    begun: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/v1/uploads/direct/{begun['id']}"
    assert answer.headers["cache-control"] == "no-store"
    return begun


def send(begun: dict[str, Any], data: bytes = DATA, only: int | None = None) -> list[dict[str, Any]]:
    sent = []
    for part in begun["parts"]:
        start = (part["number"] - 1) * begun["part_size"]
        if only in (None, part["number"]):
            answer = httpx.put(part["url"], content=data[start : start + part["size"]])
            assert answer.status_code == 200, answer.text
            sent.append({"number": part["number"], "etag": answer.headers["etag"]})
    return sent


def complete(user: User, begun: dict[str, Any], parts: list[dict[str, Any]] | None = None) -> httpx.Response:
    return user.http.post(f"/uploads/direct/{begun['id']}/complete", json={} if parts is None else {"parts": parts})


def outcome(answer: httpx.Response) -> Refused:
    return answer.status_code, answer.json()["code"]


# ---------------------------------------------------------------- the way it goes


@pytest.mark.parametrize("sha256", [SHA256, SHA256.upper(), None], ids=["named", "in capitals", "not named"])
def test_an_upload_in_parts_becomes_a_file(user: User, sha256: str | None) -> None:
    begun = begin(user, **({"sha256": sha256} if sha256 else {}))
    assert [part["size"] for part in begun["parts"]] == [PART, PART, 1004]
    answer = complete(user, begun, send(begun))
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert answer.headers["location"] == f"/api/v1/download/{file['filename']}"
    assert (file["id"], file["name"], file["size"], file["sha256"]) == (begun["id"], "снимки.zip", len(DATA), SHA256)
    assert (file["type"], file["content_type"]) == ("zip", "application/zip")
    assert user.http.get(answer.headers["location"].removeprefix("/api/v1")).content == DATA
    job = user.http.post("/jobs", json={"filename": file["filename"]})
    assert (job.status_code, job.json()["file"]["id"]) == (202, file["id"])


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1])
def test_every_size_arrives(user: User, size: int) -> None:
    data = DATA[:size]
    begun = begin(user, size, name="a.txt", content_type="text/x-test")
    assert sum(part["size"] for part in begun["parts"]) == size
    send(begun, data)
    file = complete(user, begun).json()
    assert (file["size"], file["sha256"]) == (size, hashlib.sha256(data).hexdigest())
    assert objects.read(f"inputs/{file['id']}", 32 * MIB) == data


def test_a_small_file_is_one_put_and_parts_are_ten_thousand_at_most(user: User) -> None:
    assert len(begin(user, 20 * MIB, part_size=None)["parts"]) == 1
    answer = user.http.post("/uploads/direct", json={"name": "a", "size": 1, "part_size": 1024})
    assert outcome(answer) == (422, "invalid")


def test_clients_get_the_public_address(api: Stack) -> None:
    with (
        running(only=["api"], env={"S3_PUBLIC_ENDPOINT_URL": "https://files.example.org"}) as other,
        User(other.url) as user,
    ):
        assert begin(user)["parts"][0]["url"].startswith("https://files.example.org/")


def test_what_has_arrived_is_told_and_urls_are_given_anew(user: User) -> None:
    begun = begin(user)
    (sent,) = send(begun, only=2)
    now = user.http.get(f"/uploads/direct/{begun['id']}").json()
    assert [part["etag"] for part in now["parts"]] == [None, sent["etag"], None]
    send(now, only=1)
    send(now, only=3)
    assert complete(user, begun).status_code == 201


def test_asked_again_the_answer_is_the_same_file(user: User) -> None:
    begun = begin(user)
    send(begun)
    first, again = complete(user, begun), complete(user, begun)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert len(user.http.get("/files").json()["items"]) == 1


def test_asked_twice_at_once_it_is_one_file(user: User) -> None:
    begun = begin(user)
    send(begun)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: complete(user, begun), range(4)))
    assert [answer.status_code for answer in answers] == [201] * 4, [answer.text for answer in answers]
    assert len({answer.text for answer in answers}) == 1


def test_a_beginning_is_made_once_for_a_key(user: User) -> None:
    key = {"Idempotency-Key": "one"}
    order = {"name": "a", "size": 5}
    first, again = (user.http.post("/uploads/direct", json=order, headers=key) for _ in range(2))
    assert first.json() == again.json()


# ---------------------------------------------------------------- what is not what was announced


def test_a_part_that_is_missing_or_another_can_be_sent_again(user: User) -> None:
    begun = begin(user)
    send(begun, only=1)
    answer = complete(user, begun)
    assert outcome(answer) == (409, "upload_incomplete")
    assert "part 2" in answer.json()["detail"]
    parts = send(begun)
    wrong = [{**parts[0], "etag": '"x"'}, *parts[1:]]
    for given in (wrong, parts[:2], [*parts, parts[0]], []):
        assert outcome(complete(user, begun, given)) == (409, "upload_incomplete")
    assert user.http.get("/files").json()["items"] == []
    assert complete(user, begun, parts).status_code == 201


def test_a_part_of_another_size_is_refused_by_its_url(user: User) -> None:
    begun = begin(user)
    for wrong in (DATA[: PART + 1], DATA[: PART - 1]):
        assert httpx.put(begun["parts"][0]["url"], content=wrong).status_code == 403
    assert outcome(complete(user, begun)) == (409, "upload_incomplete")


def test_a_part_of_another_size_is_noticed_where_the_storage_does_not_look(
    user: User, rows: psycopg.Connection[Any]
) -> None:
    begun = begin(user, 10)
    (upload_id,) = rows.execute("SELECT upload_id FROM direct_uploads WHERE id = %s", (begun["id"],)).fetchone() or ()
    loose = objects.presign_part(f"inputs/{begun['id']}", upload_id, 1, 60)
    httpx.put(loose, content=DATA[:1000]).raise_for_status()
    answer = complete(user, begun)
    assert outcome(answer) == (409, "upload_incomplete")
    assert "1000 bytes and not 10" in answer.json()["detail"]
    begun = begin(user, 10)
    send(begun)
    (upload_id,) = rows.execute("SELECT upload_id FROM direct_uploads WHERE id = %s", (begun["id"],)).fetchone() or ()
    further = objects.presign_part(f"inputs/{begun['id']}", upload_id, 2, 60)
    httpx.put(further, content=DATA[:1000]).raise_for_status()
    assert "2 parts and not 1" in complete(user, begun).json()["detail"]


def test_other_bytes_are_422_and_leave_nothing(user: User, rows: psycopg.Connection[Any]) -> None:
    begun = begin(user, sha256=SHA256)
    send(begun, DATA[:-1] + b"\0")
    answer = complete(user, begun)
    assert outcome(answer) == (422, "digest_mismatch")
    assert answer.json()["field"] == "sha256"
    assert outcome(complete(user, begun)) == (404, "not_found")
    assert rows.execute("SELECT FROM direct_uploads WHERE id = %s", (begun["id"],)).fetchall() == []


def test_after_completion_its_urls_write_nothing(user: User) -> None:
    begun = begin(user, 10)
    send(begun)
    assert complete(user, begun).status_code == 201
    assert httpx.put(begun["parts"][0]["url"], content=b"x" * 10).status_code == 404
    assert objects.read(f"inputs/{begun['id']}", 100) == DATA[:10]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({"size": 32 * MIB + 1}, (413, "body_too_large")),
        ({"size": -1}, (422, "invalid")),
        ({"sha256": "x"}, (422, "invalid")),
        ({"name": ""}, (422, "invalid")),
        ({"part_size": 6 * 1024**3}, (422, "invalid")),
        ({"other": 1}, (422, "invalid")),
    ],
)
def test_an_order_that_cannot_be_is_refused(user: User, order: dict[str, Any], expected: Refused) -> None:
    assert outcome(user.http.post("/uploads/direct", json={"name": "a", "size": 1, **order})) == expected


# ---------------------------------------------------------------- ends without a file


def test_an_aborted_upload_leaves_nothing(user: User) -> None:
    begun = begin(user)
    send(begun)
    assert user.http.delete(f"/uploads/direct/{begun['id']}").status_code == 204
    assert httpx.put(begun["parts"][0]["url"], content=DATA[:PART]).status_code == 404
    for answer in (complete(user, begun), user.http.delete(f"/uploads/direct/{begun['id']}")):
        assert outcome(answer) == (404, "not_found")


def expire(rows: psycopg.Connection[Any], begun: dict[str, Any]) -> None:
    rows.execute("UPDATE direct_uploads SET expires_at = now() - interval '1 s' WHERE id = %s", (begun["id"],))


def test_what_has_expired_is_swept_with_its_leftovers(user: User, rows: psycopg.Connection[Any]) -> None:
    stays, goes = begin(user, 10), begin(user)
    send(goes)
    expire(rows, goes)
    assert outcome(complete(user, goes)) == (404, "not_found")
    direct.remove_expired()
    direct.remove_expired()
    assert [
        str(one) for (one,) in rows.execute("SELECT id FROM direct_uploads").fetchall() if str(one) == goes["id"]
    ] == []
    send(stays)
    assert complete(user, stays).status_code == 201


def test_a_completion_that_died_before_its_row_can_be_asked_for_again_or_expires(
    user: User, rows: psycopg.Connection[Any]
) -> None:
    for ends in (True, False):
        begun = begin(user, 10)
        (sent,) = send(begun)
        ids = rows.execute("SELECT upload_id FROM direct_uploads WHERE id = %s", (begun["id"],)).fetchone() or ()
        objects.complete_multipart(f"inputs/{begun['id']}", ids[0], [sent["etag"]])
        if ends:
            assert complete(user, begun).json()["sha256"] == hashlib.sha256(DATA[:10]).hexdigest()
        else:
            expire(rows, begun)
            direct.remove_expired()


def test_only_so_many_are_open_at_once(user: User) -> None:
    begun = [begin(user, 1) for _ in range(3)]
    answer = user.http.post("/uploads/direct", json={"name": "a", "size": 1})
    assert outcome(answer) == (429, "too_many_uploads")
    assert int(answer.headers["retry-after"]) >= 1
    user.http.delete(f"/uploads/direct/{begun[0]['id']}")
    begin(user, 1)


# ---------------------------------------------------------------- whose


def test_only_the_owner_sees_it(api: Stack, user: User, rows: psycopg.Connection[Any]) -> None:
    begun = begin(user, 10)
    send(begun)
    with User(api.url) as stranger:
        path = f"/uploads/direct/{begun['id']}"
        asked: list[Callable[[str], httpx.Response]] = [stranger.http.get, stranger.http.delete]
        for answer in (*(ask(path) for ask in asked), complete(stranger, begun)):
            assert outcome(answer) == (404, "not_found")
        assert complete(user, begun).status_code == 201
        assert outcome(complete(stranger, begun)) == (404, "not_found")
    missing = {**begun, "id": str(uuid4())}
    assert outcome(complete(user, missing)) == (404, "not_found")
    assert UUID(begun["id"])

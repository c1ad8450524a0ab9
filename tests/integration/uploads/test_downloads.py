"""Downloads, whole and in parts, and the list of what there is: each owner's own."""

import os
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from storage import objects
from storage.accounts import accounts
from storage.database import engine
from tests.api_process import ApiProcess
from tests.gate import Gate
from tests.uploading import MIB, NAME, User, refused

DATA = os.urandom(3 * MIB + 11)


@pytest.fixture(scope="module")
def file(user: User) -> dict[str, Any]:
    return user.upload(DATA, NAME)


def test_a_download_is_the_file_as_an_attachment_under_its_name(user: User, file: dict[str, Any]) -> None:
    answer = user("GET", f"/download/{file['filename']}")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82" in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"] == f'"{file["sha256"]}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == file["content_type"]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, len(DATA)),
        ("bytes=-7", len(DATA) - 7, len(DATA)),
        (f"bytes=100-{len(DATA) + 5}", 100, len(DATA)),
        ("bytes=-99999999999", 0, len(DATA)),
        (f"bytes=1-{2 * MIB}", 1, 2 * MIB + 1),
    ],
)
def test_a_range_is_that_part(user: User, file: dict[str, Any], asked: str, start: int, end: int) -> None:
    answer = user("GET", f"/download/{file['filename']}", {"Range": asked})
    assert (answer.status_code, answer.content) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=9-5", "lines=1-2", "bytes=", "bytes=-", "bytes=x-", ""])
def test_a_range_that_need_not_be_honoured_gives_the_whole(user: User, file: dict[str, Any], asked: str) -> None:
    answer = user("GET", f"/download/{file['filename']}", {"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=-0", "bytes=99999999999-99999999999"])
def test_a_range_behind_the_end_is_416(user: User, file: dict[str, Any], asked: str) -> None:
    answer = user("GET", f"/download/{file['filename']}", {"Range": asked})
    refused(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_conditions_are_honoured(user: User, file: dict[str, Any]) -> None:
    path, tag = f"/download/{file['filename']}", f'"{file["sha256"]}"'
    for match in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = user("GET", path, {"If-None-Match": match})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert user("GET", path, {"If-None-Match": '"x"', "Range": "bytes=0-1"}).status_code == 206
    assert user("GET", path, {"If-Range": tag, "Range": "bytes=0-1"}).status_code == 206
    assert user("GET", path, {"If-Range": '"x"', "Range": "bytes=0-1"}).status_code == 200
    assert user("GET", path, {"If-Range": "Sat, 21 Nov 2026 14:00:00 GMT", "Range": "bytes=0-1"}).status_code == 200


def test_a_head_says_the_same_and_reads_nothing(user: User, file: dict[str, Any], gate: Gate) -> None:
    through = gate.through
    answer = user("HEAD", f"/download/{file['filename']}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(DATA)
    assert answer.headers["etag"] == f'"{file["sha256"]}"'
    assert answer.headers["content-type"] == file["content_type"]
    for part in ("bytes=0-1", "bytes=-2", f"bytes={len(DATA)}-"):  # a range is of a GET alone: RFC 9110 14.2
        ranged = user("HEAD", f"/download/{file['filename']}", {"Range": part})
        assert (ranged.status_code, int(ranged.headers["content-length"])) == (200, len(DATA))
        assert "content-range" not in ranged.headers
    assert gate.through == through


def test_an_empty_file_downloads(user: User) -> None:
    made = user.upload(b"", "empty.txt")
    answer = user("GET", f"/download/{made['filename']}")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    refused(user("GET", f"/download/{made['filename']}", {"Range": "bytes=0-"}), 416, "range_not_satisfiable")


def test_a_download_of_a_lost_object_or_a_lost_store_says_so(user: User, gate: Gate) -> None:
    made = user.upload(b"soon gone")
    gate.shut()
    refused(user("GET", f"/download/{made['filename']}"), 503, "storage_unavailable")
    gate.reopen()
    objects.delete([f"inputs/{made['id']}"])
    refused(user("GET", f"/download/{made['filename']}"), 410, "object_missing")


def test_a_download_that_breaks_off_is_not_taken_for_the_whole(user: User, gate: Gate) -> None:
    made = user.upload(os.urandom(40 * MIB), "large")
    url = f"{user.url}/download/{made['filename']}"
    with httpx.stream("GET", url, headers=user.headers, timeout=20) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        next(pieces)
        gate.shut()
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    gate.reopen()
    user.api.log.write_text("")  # the break is logged with its cause


def test_a_download_left_by_its_client_is_not_read_on(user: User, gate: Gate) -> None:
    made = user.upload(bytes(40 * MIB), "large")
    gate.back = 0
    with httpx.stream("GET", f"{user.url}/download/{made['filename']}", headers=user.headers) as answer:
        next(answer.iter_raw())
        time.sleep(0.5)
        assert gate.back < 30 * MIB  # nor is it read faster than the client reads
    time.sleep(1)
    assert gate.back < 30 * MIB


# ---------------------------------------------------------------- the list, URLs, deletion, owners


def test_the_list_is_ones_own_newest_first_in_pages(api: ApiProcess) -> None:
    user = User(api)
    names = [f"Файл {n} 100%.txt" for n in range(5)]
    for name in names:
        user.upload(b"x", name)
    seen: list[str] = []
    after: str | None = None
    while True:
        page = user("GET", "/files", params={"limit": 2, **({"after": after} if after else {})}).json()
        seen += [item["name"] for item in page["items"]]
        assert len(page["items"]) <= 2
        if (after := page["next"]) is None:
            break
    assert seen == names[::-1]
    assert [i["name"] for i in user("GET", "/files", params={"name": "файл 3"}).json()["items"]] == [names[3]]
    assert len(user("GET", "/files", params={"name": "100%"}).json()["items"]) == 5
    assert user("GET", "/files", params={"name": "1_0"}).json()["items"] == []
    assert user("GET", "/files", params={"name": "\0"}).json()["items"] == []
    for wrong in ({"limit": 0}, {"limit": 101}, {"after": "x"}):
        refused(user("GET", "/files", params=wrong), 422, "invalid")


def test_a_presigned_url_reads_the_file_from_the_public_address(user: User, file: dict[str, Any]) -> None:
    answer = user("GET", f"/files/{file['filename']}/url").json()
    assert httpx.URL(answer["url"]).host == "localhost"
    assert httpx.get(answer["url"]).content == DATA
    assert answer["expires_at"].endswith("Z")


def test_another_owners_file_is_not_there(stranger: User, file: dict[str, Any]) -> None:
    for method, path in (
        ("GET", f"/download/{file['filename']}"),
        ("HEAD", f"/download/{file['filename']}"),
        ("GET", f"/files/{file['filename']}/url"),
        ("DELETE", f"/files/{file['filename']}"),
    ):
        assert stranger(method, path).status_code == 404
    assert stranger("GET", "/files").json()["items"] == []


def test_an_admin_sees_any_file(api: ApiProcess, file: dict[str, Any]) -> None:
    admin = User(api)
    with engine().begin() as database:
        database.execute(accounts.update().where(accounts.c.id == admin.id).values(role="admin"))
    time.sleep(5.5)  # how long an account may pass for what it was
    assert admin("GET", f"/download/{file['filename']}").content == DATA


def test_a_deleted_file_is_gone_with_its_object(user: User) -> None:
    made = user.upload(b"x")
    assert user("DELETE", f"/files/{made['filename']}").status_code == 204
    assert f"inputs/{made['id']}" not in objects.below("inputs/")
    for method in ("GET", "DELETE"):
        path = f"/{'download' if method == 'GET' else 'files'}/{made['filename']}"
        refused(user(method, path), 404, "not_found")


def test_a_file_a_job_names_is_not_deleted(user: User) -> None:
    made = user.upload(b"needed")
    with engine().begin() as database:
        database.execute(text("CREATE TABLE naming (file_id uuid REFERENCES files (id) ON DELETE RESTRICT)"))
        database.execute(text("INSERT INTO naming VALUES (:id)"), {"id": made["id"]})
    refused(user("DELETE", f"/files/{made['filename']}"), 409, "file_in_use")
    assert objects.read(f"inputs/{made['id']}", 10) == b"needed"
    with engine().begin() as database:
        database.execute(text("DROP TABLE naming"))
    assert user("DELETE", f"/files/{made['filename']}").status_code == 204

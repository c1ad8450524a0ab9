"""With DOWNLOADS=redirect the bytes come from the object storage itself, and still as attachments that nobody runs."""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stack.up import running
from storage import objects
from tests.client import User
from tests.own_settings import settings_of

DATA = os.urandom(5000)
PAGE = b"<!doctype html><script>alert(1)</script>"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with running(only=["api"], env={"DOWNLOADS": "redirect"}) as stack, settings_of(stack.env), User(stack.url) as user:
        yield user


def uploaded(user: User, data: bytes = DATA, name: str = "отчёт.bin", content_type: str = "") -> dict[str, Any]:
    headers = {"Content-Type": content_type or "application/x-test"}
    made: dict[str, Any] = user.http.put(f"/upload?name={name}", content=data, headers=headers).json()
    return made


@pytest.mark.parametrize("of_job", [False, True])
def test_a_get_is_redirected_and_keeps_its_range_and_name(user: User, of_job: bool) -> None:
    file = uploaded(user)
    path = f"/download/{file['filename']}"
    if of_job:
        path = f"/jobs/{user.http.post('/jobs', json={'filename': file['filename']}).json()['id']}/file"
    answer = user.http.get(path)
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["cache-control"] == "no-store"
    followed = httpx.get(answer.headers["location"])
    assert followed.content == DATA
    assert "filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.bin" in followed.headers["content-disposition"]
    assert followed.headers["content-disposition"].startswith("attachment; ")
    assert user.http.get(path, headers={"Range": "bytes=5-9"}, follow_redirects=True).content == DATA[5:10]


def test_what_is_asked_of_the_api_alone_is_answered_by_it(user: User) -> None:
    file = uploaded(user)
    path = f"/download/{file['filename']}"
    head = user.http.head(path)
    assert (head.status_code, int(head.headers["content-length"])) == (200, len(DATA))
    assert user.http.get(path, headers={"If-None-Match": head.headers["etag"]}).status_code == 304
    assert user.http.get("/download/nothing").status_code == 404
    with User(user.url) as stranger:
        assert stranger.http.get(path).status_code == 404


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript"])
def test_nothing_is_given_out_that_a_browser_would_run(user: User, content_type: str) -> None:
    file = uploaded(user, PAGE, "page.html", content_type)
    assert file["content_type"] == content_type
    for url in (
        user.http.get(f"/download/{file['filename']}").headers["location"],
        user.http.get(f"/files/{file['filename']}/url").json()["url"],
    ):
        answer = httpx.get(url)
        assert answer.content == PAGE
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment; ")


def test_a_url_is_of_that_object_alone(user: User) -> None:
    one, other = uploaded(user), uploaded(user, b"other")
    location = user.http.get(f"/download/{one['filename']}").headers["location"]
    assert httpx.get(location.replace(one["id"], other["id"])).status_code in (400, 403)
    assert objects.read(f"inputs/{other['id']}", 10) == b"other"

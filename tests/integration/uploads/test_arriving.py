"""Uploads over real HTTP, with a real S3 and a real Postgres behind it: what arrives is what was sent."""

import hashlib
import os
from collections.abc import Callable

import httpx
import pytest

from storage import objects
from tests.api_process import ApiProcess
from tests.uploading import (
    FORM,
    LIMIT,
    MIB,
    NAME,
    ZIP,
    User,
    form,
    refused,
    user_echo,
)


def test_an_upload_answers_the_file_and_stores_its_bytes(user: User) -> None:
    answer = user("POST", "/upload", files={"file": (NAME, ZIP, "application/octet-stream")})
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert file["name"] == NAME
    assert file["filename"] == f"{file['id']}.zip"
    assert (file["size"], file["sha256"]) == (len(ZIP), hashlib.sha256(ZIP).hexdigest())
    assert (file["type"], file["content_type"]) == ("zip", "application/zip")
    assert answer.headers["location"] == f"/api/v1/download/{file['filename']}"
    assert set(file) == {"id", "filename", "name", "size", "content_type", "sha256", "type", "created_at"}
    assert objects.read(f"inputs/{file['id']}", LIMIT) == ZIP


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB + 200_000, 32 * MIB, 40 * MIB + 7])
@pytest.mark.parametrize("how", ["form", "body", "form of unknown length", "body of unknown length"])
def test_every_size_arrives_whole_by_every_way(user: User, size: int, how: str) -> None:
    data = os.urandom(size)
    body = form(('name="before"', b"1"), ('name="file"; filename="a.bin"', data), ('name="after"', b"2"))
    headers, sent = (FORM, body) if how.startswith("form") else ({"Content-Type": "application/octet-stream"}, data)
    pieces = (sent[at : at + 100_003] for at in range(0, len(sent), 100_003)) if "unknown" in how else sent
    answer = user("POST", "/upload", headers, content=pieces)
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert (file["size"], file["sha256"]) == (size, hashlib.sha256(data).hexdigest())
    assert objects.read(f"inputs/{file['id']}", LIMIT) == data
    assert objects.unfinished() == []
    objects.delete([f"inputs/{file['id']}"])


def test_a_body_that_looks_like_its_boundary_arrives_whole(user: User) -> None:
    data = (b"\r\n--xy" + b"\r\n--xyy\r\n" + b"\r\n-\r" + b"--xyz") * 20_000
    answer = user("POST", "/upload", FORM, content=form(('name="file"; filename="a"', data)))
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 3 * MIB])
@pytest.mark.parametrize(
    ("after", "end"),
    [
        ((), b"--xyz--\r\n"),
        ((), b"--xyz--"),
        ((), b"--xyz--\r\n\r\n"),
        ((), b"--xyz--\r\n" + b"epilogue " * 5000),
        ((('name="after"', b"2"),), b"--xyz--\r\n"),
        ((('name="after"', b"\n" * 60_000),), b"--xyz--"),
    ],
    ids=["as always", "no line break", "two", "epilogue", "a field", "a long field"],
)
def test_a_small_file_is_exact_whatever_the_form_holds_after_it(
    user: User, size: int, after: tuple[tuple[str, bytes], ...], end: bytes
) -> None:
    data = os.urandom(size)
    before = ('name="before"', b"\n\r\n" * 1000 + b"\r")
    body = form(before, ('name="file"; filename="a.bin"', data), *after, end=end)
    for pieces in (body, [body[:3020], body[3020:3080], body[3080:]], [body[:-1], body[-1:]]):
        length = {"Content-Length": str(len(body))}
        answer = user("POST", "/upload", FORM | length, content=pieces if isinstance(pieces, bytes) else iter(pieces))
        assert answer.status_code == 201, answer.text
        file = answer.json()
        assert (file["size"], file["sha256"]) == (size, hashlib.sha256(data).hexdigest())
        assert objects.read(f"inputs/{file['id']}", LIMIT) == data
        objects.delete([f"inputs/{file['id']}"])


def test_a_file_after_one_that_was_not_chosen_arrives_whole(user: User) -> None:
    data = os.urandom(2 * MIB)
    body = form(('name="other"; filename=""', b""), ('name="file"; filename="a.bin"', data))
    assert user("POST", "/upload", FORM, content=body).json()["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_raw_body_is_named_by_header_or_query(user: User, method: str) -> None:
    header = {"Content-Disposition": "attachment; filename*=UTF-8''%D0%BE%D1%82.zip", "Content-Type": "application/zip"}
    assert user(method, "/upload", header, content=ZIP).json()["name"] == "от.zip"
    plain = {"Content-Type": "text/plain"}
    assert user(method, "/upload?name=%D0%BE%D1%82.txt", plain, content=b"x").json()["name"] == "от.txt"
    assert user(method, "/upload", plain, content=b"x").json()["name"] == "file"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (NAME.encode(), NAME),
        (NAME.encode("cp1251"), NAME),
        (NAME.encode().decode("latin-1").encode(), NAME),
        (b"../../etc/passwd", "passwd"),
        (b"\xff\x98.bin", "\ufffd\ufffd.bin"),
        (b"x" * 300 + b".zip", "x" * 251 + ".zip"),
    ],
)
def test_a_name_survives_the_way(user: User, raw: bytes, name: str) -> None:
    head = (b'name="file"; filename="' + raw + b'"').decode("latin-1")
    assert user("POST", "/upload", FORM, content=form((head, b"x"))).json()["name"] == name


# ---------------------------------------------------------------- fields


def test_fields_come_before_and_after_the_file(user: User) -> None:
    body = form(
        ('name="title"', "Снимки".encode()),
        ('name="file"; filename="a"', b"x" * 6 * MIB),
        ('name="threshold"', b"0.5"),
        ('name="empty"', b""),
    )
    answer = user_echo(user, FORM, body)
    assert answer.json() == {"fields": {"title": "Снимки", "threshold": "0.5", "empty": ""}, "file": "a"}


def test_a_form_may_have_no_file(user: User) -> None:
    assert user_echo(user, FORM, form(('name="title"', b"t"))).json() == {"fields": {"title": "t"}, "file": None}
    # what a browser sends where none was chosen
    body = form(('name="file"; filename=""', b""), ('name="title"', b"t"))
    assert user_echo(user, FORM, body).json() == {"fields": {"title": "t"}, "file": None}
    assert refused(user("POST", "/upload", FORM, content=body), 422, "invalid")["field"] == "file"


@pytest.mark.usefixtures("kept_nothing")
@pytest.mark.parametrize(
    "parts",
    [
        [('name="a"; filename="a"', b"1"), ('name="b"; filename="b"', b"2")],
        [('name="file"; filename="a"', b"1" * 6 * MIB), ('name="b"; filename="b"', b"2" * MIB)],
        [('name="t"', b"1"), ('name="t"', b"2")],
        [('name="file"; filename="a"', b"1"), ('name="t"', b"\0")],
        [('name="file"; filename="a"', b"1"), *((f'name="t{n}"', b"") for n in range(17))],
        [('name="file"; filename="a"', b"1"), ('name="t"', b"x" * 65_537)],
        [('name="file"; filename="a"', b"1" * 6 * MIB), ('name="t"', b"x" * 200_000)],
        [('name="t"', b"x" * 30_000), ('name="u"', b"x" * 40_000), ('name="file"; filename="a"', b"1")],
        [('filename="a"\r\nContent-Length: 7', b"1")],
    ],
    ids=["two", "two large", "twice", "NUL", "too many", "too long", "after a large one", "in all", "wrong length"],
)
def test_a_form_that_breaks_the_rules_leaves_nothing(user: User, parts: list[tuple[str, bytes]]) -> None:
    refused(user_echo(user, FORM, form(*parts)), 400, "malformed_request")


@pytest.mark.usefixtures("kept_nothing")
def test_a_form_without_boundary_or_end_is_malformed(user: User) -> None:
    whole = form(('name="file"; filename="a"', b"x" * 6 * MIB))
    refused(user("POST", "/upload", {"Content-Type": "multipart/form-data"}, content=whole), 400, "malformed_request")
    cut = form(('name="file"; filename="a"', b"x" * 6 * MIB), end=b"")
    refused(user("POST", "/upload", FORM, content=cut), 400, "malformed_request")
    refused(user("POST", "/upload", FORM, content=b"junk" * 50_000), 400, "malformed_request")
    refused(user("POST", "/upload", FORM, content=b""), 400, "malformed_request")
    padded = form(('name="file"; filename="a"', b"x")) + b"x" * 200_000
    refused(user("POST", "/upload", FORM, content=padded), 400, "malformed_request")


@pytest.mark.usefixtures("kept_nothing")
def test_what_the_handler_does_not_keep_is_deleted(user: User) -> None:
    assert user_echo(user, FORM, form(('name="file"; filename="a"', b"x"))).json()["file"] == "a"


def test_only_forms_are_taken_where_a_form_is_needed(user: User) -> None:
    refused(user_echo(user, {"Content-Type": "text/plain"}, b"x"), 415, "unsupported_media_type")


def test_nobody_uploads_without_a_token(api: ApiProcess) -> None:
    nobody: Callable[..., httpx.Response] = httpx.request
    for method, path in (("POST", "/upload"), ("PUT", "/upload"), ("GET", "/files"), ("GET", "/download/x")):
        refused(nobody(method, f"{api.url}/api/v1{path}"), 401, "not_authenticated")

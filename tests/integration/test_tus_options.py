"""OPTIONS of tus 1.0.0: what the server can do, and the version that every request says."""

from uuid import uuid4

import httpx

from stack.up import Stack
from tests.tus_client import TUS, TUS_LIMIT, Tus


def test_options_say_what_the_server_can_do_to_anybody(tus_stack: Stack) -> None:
    for path in ("/uploads", f"/uploads/{uuid4()}"):
        answer = httpx.options(f"{tus_stack.url}/api/v1{path}")
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert answer.headers["Tus-Max-Size"] == str(TUS_LIMIT)
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,md5"
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            "creation", "creation-with-upload", "creation-defer-length", "checksum", "termination", "expiration",
            "concatenation",
        }  # fmt: skip


def test_the_version_must_be_said_and_is_said_in_every_answer(tus: Tus) -> None:
    path = tus.create(3)
    for method in ("HEAD", "PATCH", "DELETE", "POST"):
        for said in ({}, {"Tus-Resumable": "0.2.2"}):
            answer = tus.http.request(method, f"{tus.url}{path}", headers=said)
            assert answer.status_code == 412, method
            assert (answer.headers["Tus-Version"], answer.headers["Tus-Resumable"]) == ("1.0.0", "1.0.0")
    assert tus.http.post("/uploads", headers={"Upload-Length": "3"}).status_code == 412
    answer = httpx.head(f"{tus.url}{path}", headers=TUS)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (401, "1.0.0")
    assert tus.offset(path) == 0

"""A deep inspection can be asked for wherever a job is ordered, over real HTTP."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millrace.client import Client
from stack.up import Stack
from tests.client import User
from tests.tus_client import Tus
from tests.unit.archive_corpus import END, Member, archive, described

MEMBERS = [Member(name=b"%02d" % i, data=bytes([i]) * 100_000) for i in range(5)]
# the first member's descriptor has no signature, which ends the walk of the upload; the lie comes after it
LYING = archive(described(MEMBERS[0], "<III"), replace(MEMBERS[1], local_name=b"xx"), *MEMBERS[2:])
BYTES = {"Content-Type": "application/zip", "Content-Disposition": 'attachment; filename="a.zip"'}


@pytest.fixture(scope="module")
def owner(scripted: Stack) -> Iterator[Tus]:
    with Tus(scripted.url) as owner:
        yield owner


def by_form(owner: Tus, content: bytes, inspection: str) -> str:
    return str(owner.order("a.zip", content, inspection=inspection)["id"])


def by_query(owner: Tus, content: bytes, inspection: str) -> str:
    answer = owner.http.post("/jobs", params={"inspection": inspection}, content=content, headers=BYTES)
    return str(answer.raise_for_status().json()["id"])


def by_name(owner: Tus, content: bytes, inspection: str) -> str:
    file = owner.http.post("/upload", content=content, headers=BYTES).raise_for_status().json()
    order = {"filename": file["filename"], "inspection": inspection}
    return str(owner.http.post("/jobs", json=order).raise_for_status().json()["id"])


def by_tus(owner: Tus, content: bytes, inspection: str) -> str:
    path = owner.create(len(content), filename="a.zip", job="inference", inspection=inspection)
    assert owner.patch(path, 0, content).status_code == 204
    return str(owner.read(path)["job_id"])


WAYS = [by_form, by_query, by_name, by_tus]


@pytest.mark.parametrize("way", WAYS)
def test_it_finds_what_the_usual_one_does_not_see(owner: Tus, way: Any) -> None:
    usual = owner.finished(way(owner, LYING, "standard"))
    assert (usual["status"], usual["error"], usual["inspection"]) == ("succeeded", None, "standard")
    deep = owner.finished(way(owner, LYING, "deep"))
    assert (deep["status"], deep["inspection"], deep["error"]["code"]) == ("failed", "deep", "archive_header_mismatch")
    assert "01" in deep["error"]["message"]


@pytest.mark.parametrize("way", WAYS)
def test_a_lie_that_went_by_in_the_upload_is_found_without_asking(owner: Tus, way: Any) -> None:
    lying = archive(described(MEMBERS[0]), replace(MEMBERS[1], local_name=b"xx"), *MEMBERS[2:])
    job = owner.finished(way(owner, lying, "standard"))
    assert (job["status"], job["error"] and job["error"]["code"]) == ("failed", "archive_header_mismatch")


@pytest.mark.parametrize("way", WAYS)
def test_a_large_member_that_the_directory_does_not_name_is_found_without_asking(owner: Tus, way: Any) -> None:
    hidden = Member(name=b"hidden.exe", data=bytes(200_000), in_directory=False)
    job = owner.finished(way(owner, archive(MEMBERS[0], hidden, MEMBERS[1]), "standard"))
    assert (job["status"], job["error"] and job["error"]["code"]) == ("failed", "archive_hidden_entries")


def test_a_resumable_upload_in_pieces_is_walked_too(owner: Tus) -> None:
    lying = archive(described(MEMBERS[0]), replace(MEMBERS[1], local_name=b"xx"), *MEMBERS[2:])
    path = owner.create(len(lying), filename="a.zip", job="inference")
    for start in range(0, len(lying), 150_000):
        assert owner.patch(path, start, lying[start : start + 150_000]).status_code == 204
    job = owner.finished(owner.read(path)["job_id"])
    assert (job["status"], job["error"] and job["error"]["code"]) == ("failed", "archive_header_mismatch")


def test_a_rerun_is_as_deep_as_the_first_run_was(owner: Tus) -> None:
    job = owner.finished(by_form(owner, LYING, "deep"))
    again = owner.http.post(f"/jobs/{job['id']}/retry").raise_for_status().json()
    assert again["inspection"] == "deep"


def test_any_other_word_is_refused(owner: Tus) -> None:
    answer = owner.http.post("/jobs", json={"inspection": "deeper"})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid", "inspection")


def test_the_client_asks_for_it(scripted: Stack, owner: User, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(LYING)
    token = owner.http.headers["Authorization"].removeprefix("Bearer ")
    with Client(scripted.url, token) as client:
        job = client.wait(client.upload(path, inspection="deep"))
    assert (job.inspection, job.error and job.error.code) == ("deep", "archive_header_mismatch")


SOUND = [Member(name=b"1.txt", data=b"one " * 50), Member(name="два.txt".encode(), data=bytes(99), flags=0x800)]


@pytest.mark.parametrize("prefix", [b"MZ" + bytes(300), b"#!/bin/sh\nexit\n", b"\x7fELF" + bytes(200_000)])
@pytest.mark.parametrize("name", ["a.zip", "setup.exe"])
def test_an_archive_that_extracts_itself_is_listed_with_a_warning(owner: Tus, prefix: bytes, name: str) -> None:
    content = archive(*SOUND, prefix=prefix)
    job = owner.finished(str(owner.order(name, content)["id"]))
    assert (job["status"], job["error"]) == ("succeeded", None)
    info = owner.http.get(f"/jobs/{job['id']}/zip-info").raise_for_status().json()
    assert [one.partition(":")[0] for one in info["warnings"] if "local_headers" not in one] == ["prefix"]
    member = owner.http.get(f"/jobs/{job['id']}/zip-contents/0").raise_for_status()
    assert member.content == SOUND[0].data


def test_what_a_program_brings_along_is_judged(owner: Tus) -> None:
    content = archive(Member(name=b"../a"), prefix=b"MZ" + bytes(300))
    job = owner.finished(str(owner.order("setup.exe", content)["id"]))
    assert (job["status"], job["error"] and job["error"]["code"]) == ("failed", "archive_unsafe_name")


@pytest.mark.parametrize("content", [b"MZ" + bytes(300), b"#!/bin/sh\n# PK\x05\x06\n"])
def test_a_program_alone_is_a_single_file(owner: Tus, content: bytes) -> None:
    job = owner.finished(str(owner.order("setup.exe", content)["id"]))
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert owner.http.get(f"/jobs/{job['id']}/zip-info").status_code == 404


def test_the_marker_of_a_span_is_ordinary(owner: Tus) -> None:
    members = [replace(one, offset=None) for one in SOUND]
    body = b"PK00" + b"".join(one.local() for one in members)
    starts = [4, 4 + len(members[0].local())]
    directory = b"".join(one.central(start) for one, start in zip(members, starts, strict=True))
    content = body + directory + struct.pack("<4sHHHHIIH", END, 0, 0, 2, 2, len(directory), len(body), 0)
    job = owner.finished(str(owner.order("a.zip", content)["id"]))
    assert (job["status"], job["error"], job["file"]["type"]) == ("succeeded", None, "zip")
    assert owner.http.get(f"/jobs/{job['id']}/zip-info").json()["warnings"] == []

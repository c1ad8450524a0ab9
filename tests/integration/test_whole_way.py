"""The main job over real HTTP, from the upload to the parsed results, watched live."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from itertools import pairwise

import pytest

from domain.results import parse
from stack.samples import DISGUISED, make_archive
from stack.up import Stack
from tests.client import User

ARCHIVE = make_archive()


def test_an_archive_goes_the_whole_way_and_everything_about_it_can_be_read(user: User) -> None:
    job = user.order("образцы.zip", ARCHIVE, title="Samples", threshold="0.5")
    assert job["status"] in ("queued", "processing")
    events = list(user.events(job["id"]))

    stored = [event for event in events if event.id is not None]
    assert [event.id for event in stored] == list(range(1, len(stored) + 1))
    assert [event.data["stage"] for event in stored if event.type == "stage"] == [
        "inspect",
        "submit",
        "parse",
        "finish",
    ]
    assert [event.type for event in stored if event.type != "stage"] == ["queued", "waiting", "resumed", "succeeded"]
    progress = [event.data["progress"] for event in events]
    assert all(before <= after for before, after in pairwise(progress))
    assert progress[-1] == 100

    job = user.job(job["id"])
    assert (job["status"], job["progress"], job["error"]) == ("succeeded", 100, None)
    assert job["file"]["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert (job["file"]["name"], job["file"]["type"]) == ("образцы.zip", "zip")
    assert job["created_at"] <= job["queued_at"] <= job["started_at"] <= job["results_parsed_at"] <= job["completed_at"]

    results = user.http.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()
    assert {row["path"] for row in results["rows"] if row["flagged"]} == DISGUISED
    assert results["summary"]["flagged"] == len(DISGUISED)
    assert results["summary"]["rows"] == len(results["rows"]) == len(zipfile.ZipFile(io.BytesIO(ARCHIVE)).namelist())
    assert results["warnings"] == []


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Iterator[User]:
    with User(stack.url) as owner:
        yield owner


@pytest.fixture(scope="module")
def finished(owner: User) -> str:
    """The id of a job that has succeeded."""
    job = owner.finished(owner.order("sample.zip", ARCHIVE)["id"])
    assert job["status"] == "succeeded", job
    return str(job["id"])


def test_results_page_by_cursor_without_gap_or_repeat(owner: User, finished: str) -> None:
    whole = owner.http.get(f"/jobs/{finished}/results", params={"limit": 1000}).json()["rows"]
    paged, after = [], 0
    while after is not None:
        page = owner.http.get(f"/jobs/{finished}/results", params={"limit": 10, "after": after}).json()
        assert len(page["rows"]) <= 10
        paged += page["rows"]
        after = page["next"]
    assert paged == whole


def test_the_result_file_holds_the_rows_that_were_parsed(owner: User, finished: str) -> None:
    answer = owner.http.get(f"/jobs/{finished}/results.xlsx")
    head = owner.http.head(f"/jobs/{finished}/results.xlsx")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "content-disposition"):
        assert head.headers[name] == answer.headers[name]
    assert answer.headers["content-disposition"].startswith("attachment")
    rows = owner.http.get(f"/jobs/{finished}/results", params={"limit": 1000}).json()["rows"]
    assert json.loads(json.dumps(parse(answer.content).rows)) == rows


def test_the_archive_listing_pages_and_filters(owner: User, finished: str) -> None:
    names = zipfile.ZipFile(io.BytesIO(ARCHIVE)).namelist()
    paged, after = [], -1
    while after is not None:
        page = owner.http.get(f"/jobs/{finished}/zip-contents", params={"limit": 7, "after": after}).json()
        paged += page["items"]
        after = page["next"]
    assert [entry["name"] for entry in paged] == names
    by_name = {entry["name"]: entry for entry in paged}
    for info in zipfile.ZipFile(io.BytesIO(ARCHIVE)).infolist():
        entry = by_name[info.filename]
        assert (entry["size"], entry["compressed_size"]) == (info.file_size, info.compress_size)
        assert entry["crc32"] == f"{info.CRC:08x}"
    filtered = owner.http.get(f"/jobs/{finished}/zip-contents", params={"name": "OUTBOX/"}).json()["items"]
    assert {entry["name"] for entry in filtered} == {name for name in names if name.startswith("outbox/")}
    pictures = owner.http.get(f"/jobs/{finished}/zip-contents", params={"content_type": "image/"}).json()["items"]
    assert pictures
    assert all(entry["content_type"].startswith("image/") for entry in pictures)


def test_the_archive_summary_adds_up(owner: User, finished: str) -> None:
    summary = owner.http.get(f"/jobs/{finished}/zip-info").json()
    infos = zipfile.ZipFile(io.BytesIO(ARCHIVE)).infolist()
    assert summary["entries"] == len(infos)
    assert summary["size"] == sum(info.file_size for info in infos)
    assert summary["compressed_size"] == sum(info.compress_size for info in infos)


def test_the_input_downloads_as_it_was_sent(owner: User, finished: str) -> None:
    answer = owner.http.get(f"/jobs/{finished}/file")
    assert answer.content == ARCHIVE
    part = owner.http.get(f"/jobs/{finished}/file", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, ARCHIVE[10:20])


def test_a_single_file_is_judged_by_its_own_name(user: User) -> None:
    job = user.finished(user.order("photo.jpg", b"\x89PNG\r\n\x1a\n" + b"\0" * 60)["id"])
    assert (job["status"], job["file"]["type"]) == ("succeeded", "single")
    (row,) = user.http.get(f"/jobs/{job['id']}/results").json()["rows"]
    assert row["path"] == "photo.jpg"
    assert user.http.get(f"/jobs/{job['id']}/zip-info").status_code == 404


def test_threshold_decides_what_is_flagged(user: User) -> None:
    job = user.finished(user.order("sample.zip", ARCHIVE, threshold="1.0")["id"])
    strict = user.http.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).json()
    assert job["threshold"] == 1.0
    assert strict["summary"]["flagged"] < len(DISGUISED)


def test_an_uploaded_file_can_be_named_in_json_and_used_twice(user: User) -> None:
    file = user.http.post("/upload", files={"file": ("sample.zip", ARCHIVE)}).raise_for_status().json()
    jobs = [user.http.post("/jobs", json={"filename": file["filename"], "title": f"Run {n}"}) for n in (1, 2)]
    for answer in jobs:
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/api/v1/jobs/{answer.json()['id']}"
        assert user.finished(answer.json()["id"])["status"] == "succeeded"
    refused = user.http.delete(f"/files/{file['filename']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "file_in_use")
    for answer in jobs:
        assert user.http.delete(f"/jobs/{answer.json()['id']}").status_code == 204
    assert user.http.get(f"/download/{file['filename']}").content == ARCHIVE  # it was not the jobs' own


def test_a_job_without_a_file_waits_for_one(user: User) -> None:
    job = user.http.post("/jobs", json={"title": "Later"}).json()
    assert (job["status"], job["file"]) == ("pending", None)
    attached = user.http.put(f"/jobs/{job['id']}/file", files={"file": ("a.txt", b"hello, world\n" * 20)})
    assert attached.status_code == 200, attached.text
    assert user.finished(job["id"])["status"] == "succeeded"
    types = [event.type for event in user.events(job["id"])]
    assert types[:2] == ["created", "queued"]
    again = user.http.put(f"/jobs/{job['id']}/file", files={"file": ("b.txt", b"more")})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


def test_a_stream_resumes_after_the_last_event_id(owner: User, finished: str) -> None:
    whole = [event.body for event in owner.events(finished)]
    for seen in (1, 3, len(whole) - 1):
        assert [event.body for event in owner.events(finished, after=seen)] == whole[seen:]


def test_a_stream_asked_for_after_its_end_answers_204(owner: User, finished: str) -> None:
    last = len(list(owner.events(finished)))
    answer = owner.http.get(f"/jobs/{finished}/events", headers={"Last-Event-ID": str(last)})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_deleted_job_is_gone_with_its_objects(user: User, stack: Stack) -> None:
    job = user.finished(user.order("sample.zip", ARCHIVE)["id"])
    assert user.http.delete(f"/jobs/{job['id']}").status_code == 204
    assert user.http.get(f"/jobs/{job['id']}").status_code == 404
    assert user.http.get("/files").json()["items"] == []
    bucket = stack.data_dir / "s3" / "millrace"
    names = [str(path.relative_to(bucket)) for path in bucket.rglob("*")] if bucket.exists() else None
    assert names is not None, f"the embedded store keeps its objects elsewhere: {list(stack.data_dir.iterdir())}"
    assert not [name for name in names if job["id"] in name or job["file"]["id"] in name]


def test_a_file_that_came_with_a_job_goes_with_the_last_job_that_works_on_it(stack: Stack) -> None:
    with User(stack.url) as user:
        first = user.http.post("/jobs", json={}).json()["id"]
        user.http.put(f"/jobs/{first}/file", files={"file": ("a.txt", b"some text")}).raise_for_status()
        (file,) = user.http.get("/files").json()["items"]
        second = user.http.post("/jobs", json={"filename": file["filename"]}).raise_for_status().json()["id"]
        assert user.http.delete(f"/jobs/{first}").status_code == 204
        assert user.http.get(f"/jobs/{second}/file").content == b"some text"
        assert user.http.delete(f"/jobs/{second}").status_code == 204
        assert user.http.get("/files").json()["items"] == []


def test_an_uploaded_file_stays_when_its_job_is_deleted(stack: Stack) -> None:
    with User(stack.url) as user:
        file = user.http.post("/upload", files={"file": ("a.txt", b"some text")}).json()
        job = user.http.post("/jobs", json={"filename": file["filename"]}).raise_for_status().json()["id"]
        assert user.http.delete(f"/jobs/{job}").status_code == 204
        assert user.http.get(f"/download/{file['filename']}").content == b"some text"


def test_title_and_description_can_be_changed_and_nothing_else(owner: User, finished: str) -> None:
    changed = owner.http.put(f"/jobs/{finished}", json={"title": "Новое имя", "description": "о чём"}).json()
    assert (changed["title"], changed["description"]) == ("Новое имя", "о чём")
    cleared = owner.http.put(f"/jobs/{finished}", json={"description": None}).json()
    assert (cleared["title"], cleared["description"]) == ("Новое имя", None)
    refused = owner.http.put(f"/jobs/{finished}", json={"status": "queued"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_jobs_are_listed_newest_first_and_filtered(stack: Stack) -> None:
    with User(stack.url) as user:
        ids = [user.http.post("/jobs", json={"title": f"job {n}"}).json()["id"] for n in range(5)]
        page = user.http.get("/jobs", params={"limit": 2}).json()
        assert [job["id"] for job in page["items"]] == ids[:2:-1]
        rest = user.http.get("/jobs", params={"limit": 10, "after": page["next"]}).json()
        assert [job["id"] for job in rest["items"]] == ids[2::-1]
        assert rest["next"] is None
        (found,) = user.http.get("/jobs", params={"text": "JOB 3"}).json()["items"]
        assert found["id"] == ids[3]
        assert len(user.http.get("/jobs", params={"status": "pending"}).json()["items"]) == 5
        assert user.http.get("/jobs", params={"status": "failed"}).json()["items"] == []


def test_an_admin_sees_everybodys_jobs_and_others_see_none(stack: Stack, finished: str) -> None:
    with User.admin(stack.url) as admin, User(stack.url) as other:
        assert admin.job(finished)["id"] == finished
        for path in ("", "/file", "/events", "/results", "/results.xlsx", "/zip-info", "/zip-contents"):
            answer = other.http.get(f"/jobs/{finished}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert other.http.put(f"/jobs/{finished}", json={"title": "mine"}).status_code == 404
        assert other.http.delete(f"/jobs/{finished}").status_code == 404
        assert admin.job(finished)["title"] != "mine"

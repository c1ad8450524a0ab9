"""A failure in each stage, each with its name, over the real stack and an ML service that misbehaves on purpose."""

import io
import struct
import time
import zipfile
from typing import Any

import httpx
import psycopg
import pytest

from stack.up import Stack
from tests.client import User
from tests.integration.conftest import ML_TOKEN
from tests.scripted_ml import CSV, ScriptedMl

TEXT = b"some text\n" * 30


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def encrypted() -> bytes:
    data = bytearray(archive(secret=TEXT))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        struct.pack_into("<H", data, at, struct.unpack_from("<H", data, at)[0] | 1)
    return bytes(data)


def ends_as(user: User, job: dict[str, Any], code: str, stage: str, *, retryable: bool = False) -> dict[str, Any]:
    job = user.finished(job["id"])
    assert job["status"] == "failed", job
    assert (job["error"]["code"], job["error"]["stage"], job["error"]["retryable"]) == (code, stage, retryable)
    terminal = list(user.events(job["id"]))[-1]
    assert (terminal.type, terminal.data["error"]) == ("failed", job["error"])
    return job


# ---------------------------------------------------------------- inspect


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"this is a text and no archive, whatever its name says", "archive_not_zip"),
        (archive(a=TEXT, b=TEXT)[:-30], "archive_truncated"),
        (encrypted(), "archive_encrypted"),
        (archive(bomb=bytes(30_000_000)), "archive_ratio"),
        (archive(**{"../../etc/passwd": TEXT}), "archive_unsafe_name"),
    ],
    ids=["not a zip", "truncated", "encrypted", "bomb", "traversal"],
)
def test_a_bad_archive_ends_the_job_with_its_name(scripted_user: User, content: bytes, code: str) -> None:
    ends_as(scripted_user, scripted_user.order("data.zip", content), code, "inspect")


def test_why_it_failed_is_told_in_the_language_asked_for(scripted_user: User) -> None:
    """The reason inside the sentence is the service's own and stays as it came."""
    job = ends_as(scripted_user, scripted_user.order("data.zip", encrypted()), "archive_encrypted", "inspect")
    english, russian = "holds encrypted entries (first: 'secret')", "есть зашифрованные файлы (первый: 'secret')"
    for language, said in (("en", english), ("ru-RU,ru;q=0.9", russian)):
        headers = {"Accept-Language": language}
        read = scripted_user.http.get(f"/jobs/{job['id']}", headers=headers).json()
        (listed,) = scripted_user.http.get("/jobs", headers=headers).json()["items"]
        (attempt,) = scripted_user.http.get(f"/jobs/{job['id']}/attempts", headers=headers).json()["items"]
        for error in (read["error"], listed["error"], attempt["error"]):
            assert said in error["message"]


@pytest.mark.parametrize("encoding", ["cp866", "cp1251", "utf-8"])
def test_names_in_old_encodings_are_read(scripted_user: User, encoding: str) -> None:
    data = archive(**{"Z" * len("Отчёт за март.txt".encode(encoding)): TEXT})
    data = data.replace(b"Z" * len("Отчёт за март.txt".encode(encoding)), "Отчёт за март.txt".encode(encoding))
    job = scripted_user.finished(scripted_user.order("old.zip", data, profile="instant")["id"])
    assert job["status"] == "succeeded", job
    (entry,) = scripted_user.http.get(f"/jobs/{job['id']}/zip-contents").json()["items"]
    assert entry["name"] == "Отчёт за март.txt"


# ---------------------------------------------------------------- submit


@pytest.mark.parametrize(
    ("profile", "code", "retryable", "attempts"),
    [
        ("error500", "ml_unavailable", True, 3),
        ("slow", "ml_unavailable", True, 3),
        ("error400", "ml_rejected", False, 1),
        ("redirect", "ml_rejected", False, 1),
        ("nonsense", "ml_protocol_error", False, 1),
        ("wrong_job", "ml_protocol_error", False, 1),
        ("outside", "ml_protocol_error", False, 1),
    ],
)
def test_an_ml_service_that_misbehaves_ends_the_job_with_the_cause(
    scripted_user: User, scripted_ml: ScriptedMl, profile: str, code: str, *, retryable: bool, attempts: int
) -> None:
    job = scripted_user.order("a.txt", TEXT, profile=profile)
    ended = ends_as(scripted_user, job, code, "submit", retryable=retryable)
    assert ended["attempts"] == attempts
    assert "secret internals" not in str(ended)
    submissions = scripted_ml.submissions(job["id"])
    assert [one["idempotency_key"] for one in submissions] == [f"{job['id']}:{n + 1}" for n in range(attempts)]
    assert all(one["authorised"] and one["path"] == "/infer" for one in submissions)


def test_a_passing_fault_is_retried_and_the_job_succeeds(scripted_user: User) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="once500")
    assert scripted_user.finished(job["id"])["status"] == "succeeded"
    retrying = [event for event in scripted_user.events(job["id"]) if event.type == "retrying"]
    assert len(retrying) == 1
    assert "500" in retrying[0].data["message"]


def test_retry_after_is_kept_to(scripted_user: User, scripted_ml: ScriptedMl) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="busy")
    assert scripted_user.finished(job["id"])["status"] == "succeeded"
    first, second = scripted_ml.submissions(job["id"])
    assert second["at"] - first["at"] >= 2.0


def test_silence_ends_at_the_deadline(scripted_user: User) -> None:
    ends_as(scripted_user, scripted_user.order("a.txt", TEXT, profile="silent"), "ml_timeout", "ask", retryable=True)


def test_a_failure_reported_by_the_service_is_told_with_its_reason(scripted_user: User) -> None:
    job = ends_as(scripted_user, scripted_user.order("a.txt", TEXT, profile="fails"), "ml_failed", "waiting")
    assert "upside down" in job["error"]["message"]


# ---------------------------------------------------------------- parse


def test_a_result_that_is_not_what_it_says(scripted_user: User) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="unreadable")
    ends_as(scripted_user, job, "result_unreadable", "parse")
    answer = scripted_user.http.get(f"/jobs/{job['id']}/results")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_ready")


def test_a_result_that_is_not_there(scripted_user: User) -> None:
    ends_as(scripted_user, scripted_user.order("a.txt", TEXT, profile="missing"), "result_missing", "parse")


# ---------------------------------------------------------------- completions


def test_a_service_that_is_done_at_once_needs_no_callback(scripted_user: User) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="instant")["id"])
    assert job["status"] == "succeeded"
    types = [event.type for event in scripted_user.events(job["id"])]
    assert "waiting" not in types
    csv = scripted_user.http.get(f"/jobs/{job['id']}/results").json()
    assert [row["path"] for row in csv["rows"]] == ["a.txt", "b.txt"]


def test_a_completion_before_the_answer_to_the_submission_counts(scripted_user: User, scripted_ml: ScriptedMl) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="completes_early")["id"])
    assert job["status"] == "succeeded", job
    assert len(scripted_ml.submissions(job["id"])) == 1


def test_the_same_completion_again_is_fine_and_another_is_a_conflict(
    scripted_user: User, scripted_ml: ScriptedMl
) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="completes")["id"])
    (request,) = scripted_ml.submissions(job["id"])
    before = [event.body for event in scripted_user.events(job["id"])]
    assert scripted_ml.complete(request, status="succeeded", output_object=request["output_object"]) == 200
    assert scripted_ml.complete(request, status="failed", error="no, it did not") == 409
    assert [event.body for event in scripted_user.events(job["id"])] == before
    assert scripted_user.job(job["id"])["status"] == "succeeded"


def test_a_verdict_is_not_refused_for_the_text_of_its_reason(scripted_user: User, scripted_ml: ScriptedMl) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="silent")
    for event in scripted_user.events(job["id"]):
        if event.type == "waiting":
            (request,) = scripted_ml.submissions(job["id"])
            assert scripted_ml.complete(request, status="failed", error="a\0b" + "x" * 100_000) == 200
    ended = scripted_user.job(job["id"])
    assert ended["error"]["code"] == "ml_failed"
    assert "a\ufffdbx" in ended["error"]["message"]


def test_a_completion_after_the_deadline_is_refused(scripted_user: User, scripted_ml: ScriptedMl) -> None:
    job = scripted_user.finished(scripted_user.order("a.txt", TEXT, profile="silent")["id"])
    (request,) = scripted_ml.submissions(job["id"])
    assert scripted_ml.complete(request, status="succeeded") == 409


def completion(stack: Stack, job_id: str, body: Any, token: str | None = ML_TOKEN) -> tuple[int, str]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"{stack.url}/api/v1/internal/jobs/{job_id}/completion"
    answer = httpx.post(url, json=body, headers=headers)
    return answer.status_code, answer.json()["code"]


NOBODY = "01990000-0000-7000-8000-000000000000"


def test_completions_are_checked(
    scripted: Stack, scripted_user: User, rows: psycopg.Connection[dict[str, Any]]
) -> None:
    job = scripted_user.http.post("/jobs", json={"title": "waits for its file"}).json()
    fine = {"status": "succeeded"}
    assert completion(scripted, job["id"], fine, token=None) == (401, "not_authenticated")
    assert completion(scripted, job["id"], fine, token="wrong") == (401, "not_authenticated")
    own_token = scripted_user.http.headers["Authorization"].removeprefix("Bearer ")
    assert completion(scripted, job["id"], fine, token=own_token) == (401, "not_authenticated")
    assert completion(scripted, NOBODY, fine) == (404, "not_found")
    assert completion(scripted, job["id"], {"status": "perhaps"}) == (422, "invalid")
    assert completion(scripted, job["id"], {"state": "succeeded"}) == (422, "invalid")
    own = f"results/{job['id']}/"
    for elsewhere in ("inputs/other", f"{own}../x", f"{own}a/../../x", f"{own}./x", f"{own}/x", own):
        assert completion(scripted, job["id"], {"status": "done", "output_object": elsewhere}) == (422, "invalid")
    assert completion(scripted, job["id"], fine) == (409, "job_not_ready")
    assert completion(scripted, job["id"], {"status": "x" * 2_000_000})[0] == 413
    stored = rows.execute("SELECT status, signal FROM jobs WHERE id = %s", [job["id"]]).fetchone()
    assert stored == {"status": "pending", "signal": None}


def test_progress_of_the_service_moves_the_bar_and_never_back(scripted: Stack, scripted_user: User) -> None:
    job = scripted_user.order("a.txt", TEXT, profile="silent")
    url = f"{scripted.url}/api/v1/internal/jobs/{job['id']}/progress"
    headers = {"Authorization": f"Bearer {ML_TOKEN}"}
    sent = False
    seen = []
    for event in scripted_user.events(job["id"]):
        if event.type == "waiting" and not sent:
            sent = True
            for percent in (50, 20, 90):
                body = {"progress": percent, "message": f"{percent} of 100"}
                time.sleep(0.11)  # what follows more closely is stored and not announced
                assert httpx.post(url, json=body, headers=headers).status_code == 204
        if event.type == "progress":
            seen.append((event.data["progress"], event.data["message"]))
    assert seen == [(45, "50 of 100"), (45, "20 of 100"), (73, "90 of 100")]
    assert httpx.post(url, json={"progress": 1}, headers=headers).status_code == 409
    assert httpx.post(url, json={"progress": 1}).status_code == 401


def test_what_the_service_is_sent_is_the_contract(scripted_user: User, scripted_ml: ScriptedMl) -> None:
    job = scripted_user.finished(scripted_user.order("Отчёт.txt", TEXT, profile="instant", threshold="0.25")["id"])
    (request,) = scripted_ml.submissions(job["id"])
    assert (request["profile"], request["threshold"]) == ("instant", 0.25)
    assert request["callback_url"].endswith(f"/api/v1/internal/jobs/{job['id']}/completion")
    assert httpx.get(request["input_url"]).content == TEXT
    assert request["input_object"] != request["output_object"]
    assert httpx.put(request["output_url"], content=CSV).status_code == 200

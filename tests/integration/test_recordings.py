"""Recordings arrive by themselves: real mail servers, real jobs, real workers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import httpx
import psycopg
import pytest

from stack.imap import MailServer, serving
from stack.up import ROOT, Stack
from tests.client import User
from tests.faults.proxy import Proxy
from tests.mailbox_corpus import Letter, big, digest, letters, sound, wanted
from tests.receiver import until
from tests.recordings_house import fetched, folder_with, kept, recordings_house, watched
from tests.unit.test_openapi import NEEDED

Rows = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def house(mail: MailServer) -> Iterator[Stack]:
    env = {"RETRY_BASE_SECONDS": "0.2", "MAILBOX_SWEEP_SECONDS": "1", "MAILBOX_SECONDS": "5"}
    with recordings_house(mail, env) as stack:
        yield stack


@pytest.fixture
def admin(house: Stack) -> Iterator[User]:
    with User.admin(house.url) as user:
        yield user


@pytest.fixture
def rows(house: Stack) -> Iterator[Rows]:
    with psycopg.connect(house.env["DATABASE_URL"], row_factory=psycopg.rows.dict_row, autocommit=True) as connection:
        yield connection
        for table in ("recordings", "mailboxes", "audio_accesses"):
            connection.execute(f"DELETE FROM {table}")


def standing(admin: User, mailbox_id: str) -> dict[str, Any]:
    (one,) = [
        one for one in admin.http.get("/recordings/status").json()["mailboxes"] if one["mailbox_id"] == mailbox_id
    ]
    return dict(one)


def test_what_comes_is_kept_and_described(admin: User, rows: Rows, mail: MailServer) -> None:
    some = letters(18)
    folder = folder_with(mail, "kinds", *(one.raw for one in some))
    mailbox_id = watched(admin, mail, folder)
    job = fetched(admin, mailbox_id)
    assert (job["status"], job["kind"], job["file"]) == ("succeeded", "recordings", None), job
    assert {one["sha256"] for one in kept(admin)} == wanted(some)
    (one,) = kept(admin, number="8 (916) 000-00-00")
    assert (one["from_number"], one["to_number"], one["started_at"]) == (
        "+79160000000",
        "+74951234567",
        "2025-09-15T05:00:00Z",
    ), "Moscow is three hours ahead"
    assert {"Запись 1.wav", "Звонок 9.wav", "Звонок 10.wav"} <= {one["name"] for one in kept(admin)}
    now = standing(admin, mailbox_id)
    assert (now["found"], now["waiting"], now["skipped"], now["errors"]) == (16, 0, 0, 0)
    assert (now["stored"], now["duplicates"], now["unmatched"]) == (15, 1, len(wanted(some)))
    again = fetched(admin, mailbox_id, days_back=30)
    assert again["status"] == "succeeded"
    assert len(kept(admin)) == len(wanted(some))
    assert standing(admin, mailbox_id)["found"] == 16


# ---------------------------------------------------------------- each recording once


def test_a_folder_that_is_numbered_anew_is_not_fetched_again(admin: User, rows: Rows, mail: MailServer) -> None:
    some = letters(12)
    folder = folder_with(mail, "renumbered", *(one.raw for one in some))
    mailbox_id = watched(admin, mail, folder)
    fetched(admin, mailbox_id)
    before = {one["id"] for one in kept(admin)}
    with mail.client() as client:
        client.select_folder(folder)
        old = client.folder_status(folder, ["UIDVALIDITY"])[b"UIDVALIDITY"]
        times = client.fetch(client.search(), ["INTERNALDATE"])
        client.unselect_folder() if client.has_capability("UNSELECT") else client.select_folder("INBOX")
        client.rename_folder(folder, f"{folder} before")
        until(lambda: _numbered(mail, folder) != old)
        for letter, (_, described) in zip(some, sorted(times.items()), strict=True):
            client.append(folder, letter.raw, msg_time=described[b"INTERNALDATE"])
    assert fetched(admin, mailbox_id)["status"] == "succeeded"
    assert {one["id"] for one in kept(admin)} == before
    again = rows.execute(
        """SELECT reason, count(*) FROM mail_messages WHERE state = 'duplicate' GROUP BY reason ORDER BY reason"""
    ).fetchall()
    with_id = sum(b"message-id" in one.raw.lower() and bool(one.audio) for one in some)
    assert {one["reason"]: one["count"] for one in again} == {
        "same_message": with_id,  # not fetched at all
        "same_audio": sum(bool(one.audio) for one in some) - with_id,
    }


def _numbered(mail: MailServer, folder: str) -> int:
    with mail.client() as client:
        if not client.folder_exists(folder):
            client.create_folder(folder)
        number: int = client.folder_status(folder, ["UIDVALIDITY"])[b"UIDVALIDITY"]
        if not client.folder_status(folder, ["MESSAGES"])[b"MESSAGES"]:
            return number
        return number


def test_what_was_moved_is_still_known_and_two_mailboxes_keep_the_same_audio_once(
    admin: User, rows: Rows, mail: MailServer
) -> None:
    some = letters(6)
    folder = folder_with(mail, "to be moved", *(one.raw for one in some))
    mailbox_id = watched(admin, mail, folder, after_action="move", move_to="moved")
    assert fetched(admin, mailbox_id)["status"] == "succeeded"
    with mail.client() as client:
        assert client.folder_status(folder)[b"MESSAGES"] == 0
        assert client.folder_status("moved")[b"MESSAGES"] == 6
    assert len(kept(admin)) == 6
    other = watched(admin, mail, "moved", after_action="seen")
    assert fetched(admin, other)["status"] == "succeeded"
    assert standing(admin, other)["duplicates"] == 6
    assert len(kept(admin)) == 6
    with mail.client() as client:
        client.select_folder("moved")
        assert len(client.search(["SEEN"])) == 6


def test_nothing_is_marked_without_an_after_action_and_the_rules_decide(
    admin: User, rows: Rows, mail: MailServer
) -> None:
    some = letters(3)
    folder = folder_with(mail, "ruled", *(one.raw for one in some), some[0].raw.replace(b"auto-mailer@", b"spam@"))
    mailbox_id = watched(
        admin, mail, folder, rules={"senders": ["auto-mailer@", "x@mango"], "subjects": ["ЗАПИСЬ", "nested"]}
    )
    assert admin.http.get(f"/mailboxes/{mailbox_id}").json()["rules"]["subjects"] == ["ЗАПИСЬ", "nested"]
    check = admin.http.post(f"/mailboxes/{mailbox_id}/check").raise_for_status().json()
    assert folder in check["folders"]
    assert (check["messages"], [one["subject"] for one in check["candidates"]]) == (
        4,
        ["nested", "Запись разговора от Марии"],
    )
    assert kept(admin, mailbox_id=mailbox_id) == [] or standing(admin, mailbox_id)["job_id"], "a check takes nothing"
    fetched(admin, mailbox_id)
    assert {one["sha256"] for one in kept(admin)} == wanted(some[1:3])
    with mail.client() as client:
        client.select_folder(folder)
        assert client.search(["SEEN"]) == []


# ---------------------------------------------------------------- getting in


def test_a_refused_login_disables_the_mailbox_and_is_tried_once(admin: User, rows: Rows, mail: MailServer) -> None:
    mailbox_id = watched(admin, mail, "INBOX", secret="not this one")
    until(lambda: not admin.http.get(f"/mailboxes/{mailbox_id}").json()["enabled"])
    mailbox = admin.http.get(f"/mailboxes/{mailbox_id}").json()
    assert mailbox["disabled_reason"] == "login_refused"
    job = admin.finished(standing(admin, mailbox_id)["job_id"])
    assert (job["status"], job["error"]["code"], job["error"]["stage"]) == ("failed", "mailbox_login_refused", "poll")
    assert job["attempts"] == 1
    assert "b'" not in job["error"]["message"], "the server's words, not Python's bytes"
    assert standing(admin, mailbox_id)["failures"] == 1
    answer = admin.http.post("/recordings/download", params={"mailbox_id": mailbox_id})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "millrace_mailboxes_disabled 1.0" in httpx.get(f"{admin.url}/metrics", trust_env=False).text
    admin.http.put(f"/mailboxes/{mailbox_id}", json={"secret": mail.password, "enabled": True}).raise_for_status()
    assert fetched(admin, mailbox_id)["status"] == "succeeded"
    assert standing(admin, mailbox_id)["error_code"] is None


def test_secrets_are_encrypted_and_never_shown(admin: User, house: Stack, rows: Rows, mail: MailServer) -> None:
    mailbox_id = watched(admin, mail, "INBOX", enabled=False)
    stored = rows.execute("SELECT secret FROM mailboxes").fetchone()
    assert stored is not None
    assert mail.password not in str(stored)
    for path in ("/mailboxes", f"/mailboxes/{mailbox_id}", "/recordings/status"):
        assert mail.password not in admin.http.get(path).text
    log = (house.data_dir / "logs").glob("*.log")
    assert not [one for one in log if mail.password in one.read_text(errors="replace")]


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"host": "10.0.0.1"}, "url_refused", "host"),
        ({"host": "nowhere.invalid"}, "host_unknown", "host"),
        ({"time_zone": "Mars/Olympus"}, "invalid", "time_zone"),
        ({"after_action": "move"}, "invalid", "move_to"),
        ({"port": 0}, "invalid", "port"),
        ({"password": "?"}, "invalid", None),
    ],
)
def test_what_cannot_be_a_mailbox_is_refused(
    admin: User, mail: MailServer, change: dict[str, Any], code: str, field: str | None
) -> None:
    answer = admin.http.post("/mailboxes", json={**mail.order(), **change})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert field is None or answer.json()["field"] == field


def test_mailboxes_are_for_admins_and_recordings_for_their_owner(
    admin: User, house: Stack, rows: Rows, mail: MailServer
) -> None:
    with User(house.url) as owner, User(house.url) as other:
        owner_id = owner.http.get("/auth/me").json()["id"]
        folder = folder_with(mail, "owned", letters(1)[0].raw)
        mailbox_id = watched(admin, mail, folder, owner_id=owner_id)
        assert owner.http.post("/mailboxes", json=mail.order()).json()["code"] == "forbidden"
        assert owner.http.get(f"/mailboxes/{mailbox_id}").status_code == 403
        assert fetched(owner, mailbox_id)["status"] == "succeeded"
        (recording,) = kept(owner)
        path = f"/recordings/{recording['id']}"
        assert kept(other) == []
        for method, where in (("GET", path), ("GET", f"{path}/audio"), ("DELETE", path)):
            assert other.http.request(method, where).status_code == 404, where
        assert other.http.post("/recordings/download", params={"mailbox_id": mailbox_id}).status_code == 404
        assert httpx.get(f"{house.url}/api/v1{path}/audio", trust_env=False).status_code == 401
        assert owner.http.get("/recordings/accesses").status_code == 403


# ---------------------------------------------------------------- the audio


def test_audio_is_played_in_parts_and_who_listened_is_known(admin: User, rows: Rows, mail: MailServer) -> None:
    letter = letters(1)[0]
    mailbox_id = watched(admin, mail, folder_with(mail, "played", letter.raw))
    fetched(admin, mailbox_id)
    (recording,) = kept(admin)
    path = f"/recordings/{recording['id']}/audio"
    whole = admin.http.get(path)
    assert (whole.content, whole.headers["content-type"]) == (letter.audio[0], "audio/wav")
    part = admin.http.get(path, headers={"Range": "bytes=44-99", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, letter.audio[0][44:100])
    assert admin.http.head(path).headers["content-length"] == str(len(letter.audio[0]))
    accesses = admin.http.get("/recordings/accesses", params={"recording_id": recording["id"]}).json()["items"]
    assert [(one["username"], one["part"]) for one in accesses] == [("root.admin", "bytes=44-99"), ("root.admin", None)]
    until(lambda: admin.http.get(f"/recordings/{recording['id']}").json()["listened"])
    heard = admin.http.get(f"/recordings/{recording['id']}").json()
    assert (heard["codec"], heard["channels"], heard["sample_rate"]) == ("pcm_s16le", 1, 8000)
    assert heard["duration_seconds"] == pytest.approx(0.2, abs=0.05)
    assert heard["speech_share"] < 0.5
    assert heard["warning"] is None
    assert admin.http.delete(f"/recordings/{recording['id']}").status_code == 204
    assert admin.http.get(path).status_code == 404
    assert len(admin.http.get("/recordings/accesses", params={"recording_id": recording["id"]}).json()["items"]) == 2


def test_what_is_no_audio_is_kept_with_a_warning(admin: User, rows: Rows, mail: MailServer) -> None:
    fake, broken = letters(1)[0], sound(77)[:50]
    raw = fake.raw.replace(b"audio/wav", b"audio/mpeg")
    other = Letter(raw, fake.audio)
    folder = folder_with(mail, "no audio", other.raw, _holding(b"MZ this is a program"), _holding(broken))
    fetched(admin, watched(admin, mail, folder))
    until(lambda: all(one["listened"] for one in kept(admin)))
    found = {one["sha256"]: (one["content_type"], one["warning"]) for one in kept(admin)}
    assert found == {
        digest(fake.audio[0]): ("audio/wav", None),
        digest(b"MZ this is a program"): ("application/octet-stream", "not_audio"),
        digest(broken): ("audio/wav", "audio_unreadable"),
    }


def _holding(audio: bytes) -> bytes:
    letter = EmailMessage()
    letter["From"] = "auto-mailer@mangotele.com"
    letter.set_content("text")
    letter.add_attachment(audio, maintype="audio", subtype="wav", filename="a.wav")
    return letter.as_bytes()


def test_a_big_attachment_goes_through(admin: User, house: Stack, rows: Rows, mail: MailServer) -> None:
    (letter,) = big(5, 20 * 1024**2)
    job = fetched(admin, watched(admin, mail, folder_with(mail, "big", letter.raw)))
    assert job["status"] == "succeeded"
    (recording,) = kept(admin)
    assert (recording["sha256"], recording["size"]) == (digest(letter.audio[0]), len(letter.audio[0]))


def test_a_cancelled_job_stops_between_messages_and_another_goes_on(admin: User, rows: Rows, mail: MailServer) -> None:
    some = [letter for seed in range(12) for letter in big(100 + seed, 600 * 1024)]  # two in a command at most
    folder = folder_with(mail, "cancelled", *(one.raw for one in some))
    with Proxy(mail.port) as proxy:
        proxy.faults.bytes_per_second = 1.5e6  # all of it would take seven seconds
        mailbox_id = watched(admin, mail, folder, port=proxy.port)
        until(lambda: kept(admin) or standing(admin, mailbox_id)["stored"])
        job = standing(admin, mailbox_id)["job_id"]
        admin.http.post(f"/jobs/{job}/cancel").raise_for_status()
        assert admin.finished(job)["status"] == "cancelled"
        left = standing(admin, mailbox_id)
        assert 0 < left["stored"] < 12
        assert left["waiting"] == 12 - left["stored"]
        proxy.faults.bytes_per_second = None
        assert fetched(admin, mailbox_id)["status"] == "succeeded"
    assert {one["sha256"] for one in kept(admin)} == wanted(some)
    assert standing(admin, mailbox_id)["stored"] == 12


# ---------------------------------------------------------------- the schedule


def test_the_schedule_looks_by_itself_until_it_is_stopped(admin: User, rows: Rows, mail: MailServer) -> None:
    folder = folder_with(mail, "scheduled")
    mailbox_id = watched(admin, mail, folder, poll_seconds=1)
    until(lambda: standing(admin, mailbox_id)["checked_at"])
    with mail.client() as client:
        client.append(folder, letters(1)[0].raw)
    until(lambda: kept(admin))
    (stopped,) = admin.http.post("/recordings/stop").raise_for_status().json()["mailboxes"]
    assert (stopped["scheduled"], stopped["next_poll_at"]) == (False, None)
    until(lambda: admin.job(standing(admin, mailbox_id)["job_id"])["status"] == "succeeded")
    last = standing(admin, mailbox_id)["job_id"]
    assert fetched(admin, mailbox_id)["id"] != last, "by hand all the same"
    (started,) = admin.http.post("/recordings/start").raise_for_status().json()["mailboxes"]
    assert started["scheduled"] is True


def test_a_job_of_recordings_is_not_ordered_with_a_file(admin: User) -> None:
    answer = admin.http.post("/jobs", json={"kind": "recordings"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_nothing_of_it_is_there_when_it_is_switched_off() -> None:
    """In a process of its own: what was imported stays."""
    script = """
from api.app import create_app
from workers.app import app
import json, sys
print(json.dumps(sorted({route.path for route in create_app().routes})))
print(json.dumps(sorted({*app.tasks, *app.conf.beat_schedule})))
print(json.dumps([name for name in sys.modules if name.startswith(("api.recordings", "workers.recordings"))]))
"""
    found = []
    for modules in ("inference", "inference,recordings"):
        env = {**os.environ, **NEEDED, "MILLRACE_MODULES": modules}
        run = subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found.append([set(json.loads(line)) for line in run.stdout.splitlines()])
    (paths, tasks, imported), (all_paths, all_tasks, all_imported) = found
    assert not imported
    assert all_imported
    parts = {one.removeprefix("/api/v1/").partition("/")[0] for one in all_paths - paths}
    assert parts == {"recordings", "mailboxes", "calls", "mango"}
    assert not {one.removeprefix("/api/v1/").partition("/")[0] for one in paths} & parts
    assert {one.partition(".")[0] for one in all_tasks - tasks} == {"recordings"}
    assert paths < all_paths
    assert tasks < all_tasks

"""Mailboxes by the API: what is no name, a login that a check finds refused, and each mailbox's own numbers."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stack.imap import MailServer, serving
from stack.up import Stack
from tests import scripted_mail
from tests.client import FINAL, User
from tests.mailbox_corpus import letters, wanted
from tests.receiver import until
from tests.recordings_house import fetched, folder_with, recordings_house, watched
from tests.scripted_mail import Scripted


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def house(mail: MailServer) -> Iterator[Stack]:
    with recordings_house(mail, {"MAILBOX_SECONDS": "5"}) as stack:
        yield stack


@pytest.fixture
def admin(house: Stack) -> Iterator[User]:
    with User.admin(house.url) as user:
        yield user


@pytest.mark.parametrize("field", ["username", "secret"])
@pytest.mark.parametrize("value", ["a\r\nX9 DELETE INBOX", "a\n", "a\0b"])
def test_what_would_be_another_command_is_no_name(admin: User, mail: MailServer, field: str, value: str) -> None:
    answer = admin.http.post("/mailboxes", json={**mail.order(), field: value})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid", field)
    mailbox = watched(admin, mail, "INBOX", enabled=False)
    answer = admin.http.put(f"/mailboxes/{mailbox}", json={field: value})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_a_login_that_a_check_finds_refused_is_told_by_a_job_and_not_tried_again(admin: User, mail: MailServer) -> None:
    with scripted_mail.serving(Scripted(b"NO [AUTHENTICATIONFAILED] not this one")) as script:
        mailbox = watched(admin, script.server, "INBOX", enabled=False)
        admin.http.post("/recordings/stop", params={"mailbox_id": mailbox}).raise_for_status()
        admin.http.post(f"/mailboxes/{mailbox}/enable").raise_for_status()
        for _ in range(4):
            answer = admin.http.post(f"/mailboxes/{mailbox}/check")
            assert (answer.status_code, answer.json()["code"]) == (422, "mailbox_login_refused")
            assert "not this one" in answer.json()["detail"]
        assert len(script.logins) == 1
        until(lambda: _job(admin, mailbox)["status"] in FINAL)
        job = _job(admin, mailbox)
        assert (job["status"], job["error"]["code"]) == ("failed", "mailbox_login_refused")
        assert "not this one" in job["error"]["message"]
        assert len(script.logins) == 1, "the job tells, and tries nothing"
        for change in ({"secret": "another"}, {"enabled": True}):
            admin.http.put(f"/mailboxes/{mailbox}", json=change).raise_for_status()
            before = len(script.logins)
            admin.http.post(f"/mailboxes/{mailbox}/check")
            assert len(script.logins) == before + 1


def test_each_mailbox_has_its_numbers(admin: User, house: Stack, mail: MailServer) -> None:
    some = letters(9)
    mailbox = watched(admin, mail, folder_with(mail, "numbers", *(one.raw for one in some)))
    empty = watched(admin, mail, folder_with(mail, "nothing"))
    assert fetched(admin, mailbox)["status"] == "succeeded"

    def seen() -> dict[str, float]:
        lines = httpx.get(f"{house.url}/metrics", trust_env=False).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if "mailbox=" in name}

    recordings = f'millrace_mailbox_recordings{{mailbox="{mailbox}",status="unmatched"}}'
    until(lambda: seen().get(recordings) == len(wanted(some)))
    now = seen()
    (standing,) = [
        one for one in admin.http.get("/recordings/status").json()["mailboxes"] if one["mailbox_id"] == mailbox
    ]
    for state, named in (
        ("stored", "stored"),
        ("duplicate", "duplicates"),
        ("skipped", "skipped"),
        ("failed", "errors"),
    ):
        assert now[f'millrace_mailbox_messages{{mailbox="{mailbox}",state="{state}"}}'] == standing[named], state
    assert standing["stored"] > 0
    assert now[f'millrace_mailbox_checked_seconds{{mailbox="{mailbox}"}}'] < 60
    assert now[f'millrace_mailbox_failures{{mailbox="{mailbox}"}}'] == 0
    assert now[f'millrace_mailbox_messages{{mailbox="{empty}",state="stored"}}'] == 0
    admin.http.delete(f"/mailboxes/{mailbox}").raise_for_status()
    until(lambda: recordings not in seen())
    text = httpx.get(f"{house.url}/metrics", trust_env=False).text
    assert 'millrace_mail_messages{state="stored"} 0.0' in text


def _job(admin: User, mailbox: str) -> dict[str, Any]:
    (standing,) = [
        one for one in admin.http.get("/recordings/status").json()["mailboxes"] if one["mailbox_id"] == mailbox
    ]
    return dict(admin.job(standing["job_id"]))

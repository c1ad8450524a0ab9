"""Recordings arrive by themselves: real mail servers, real jobs, real workers."""

from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from stack.imap import MailServer, serving
from stack.up import Stack, running
from tests.brokers import broker_env
from tests.client import User
from tests.mailbox_corpus import letters, wanted

Rows = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def house(mail: MailServer) -> Iterator[Stack]:
    env = {
        "ADMIN_USERNAME": "root.admin",
        "ADMIN_PASSWORD": "an admin of the tests",
        "SWEEP_SECONDS": "0.5",
        "RETRY_BASE_SECONDS": "0.2",
        "MAILBOX_SWEEP_SECONDS": "1",
        "MAILBOX_SECONDS": "5",
        "RECORDING_LISTEN_SECONDS": "1",
        **mail.settings(),
        **broker_env(),
    }
    with running(env=env, only=["api", "worker", "sweeper", "beat"]) as stack:
        yield stack


@pytest.fixture
def admin(house: Stack) -> Iterator[User]:
    account = {"username": "root.admin", "password": "an admin of the tests"}
    answer = httpx.post(f"{house.url}/api/v1/auth/login", json=account, trust_env=False).raise_for_status()
    with User(house.url, answer.json()["access_token"]) as user:
        yield user


@pytest.fixture
def rows(house: Stack) -> Iterator[Rows]:
    with psycopg.connect(house.env["DATABASE_URL"], row_factory=psycopg.rows.dict_row, autocommit=True) as connection:
        yield connection
        for table in ("recordings", "mailboxes", "audio_accesses"):
            connection.execute(f"DELETE FROM {table}")


def watched(admin: User, mail: MailServer, folder: str, **more: Any) -> str:
    """A mailbox that is not looked into by the schedule."""
    body = {**mail.order(), "folder": folder, "poll_seconds": 86400, **more}
    answer = admin.http.post("/mailboxes", json=body)
    assert answer.status_code == 201, answer.text
    mailbox_id: str = answer.json()["id"]
    return mailbox_id


def folder_with(mail: MailServer, name: str, *raw: bytes) -> str:
    with mail.client() as client:
        client.create_folder(name)
        for one in raw:
            client.append(name, one)
    return name


def fetched(admin: User, mailbox_id: str, **query: Any) -> dict[str, Any]:
    """Fetch now, wait for the end."""
    answer = admin.http.post("/recordings/download", params={"mailbox_id": mailbox_id, **query})
    assert answer.status_code == 202, answer.text
    (job,) = answer.json()["jobs"]
    return admin.finished(job["id"])


def kept(admin: User, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = admin.http.get("/recordings", params={"limit": 100, **query, **after}).raise_for_status().json()
        found += page["items"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}


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

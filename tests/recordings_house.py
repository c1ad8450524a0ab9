"""A house to which recordings come: its admin's mailboxes, what is fetched from them, what is kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from stack.imap import MailServer
from stack.up import Stack, running
from tests.brokers import broker_env
from tests.client import WITH_ADMIN, User


@contextmanager
def recordings_house(mail: MailServer, env: Mapping[str, str]) -> Iterator[Stack]:
    """API and workers that may connect to this mail server; what they do by the clock they do every second."""
    quick = {"SWEEP_SECONDS": "0.5", "RECORDING_LISTEN_SECONDS": "1"}
    settings = {**WITH_ADMIN, **quick, **env, **mail.settings(), **broker_env()}
    with running(env=settings, only=["api", "worker", "sweeper", "beat"]) as stack:
        yield stack


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
    """Every recording, page by page."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = admin.http.get("/recordings", params={"limit": 100, **query, **after}).raise_for_status().json()
        found += page["items"]
        if page["next"] is None:
            return found
        after = {"after": page["next"]}

"""Webhooks in this process: a receiver of theirs, and what the dispatcher sends in place of the broker."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from migrations.__main__ import upgrade
from stack.up import Stack
from storage import dispatch
from storage.database import autocommit
from tests import job_rows
from tests.own_settings import settings_of
from tests.receiver import Receiver

SETTINGS = {
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "WEBHOOK_PORTS": "any",
    "WEBHOOK_REQUEST_SECONDS": "1",
    "WEBHOOK_RETRIES": "5,300,1800",
}


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> Iterator[None]:
    with settings_of({**in_process.env, **SETTINGS}):
        upgrade()
        yield


@pytest.fixture(autouse=True)
def nothing_there() -> None:
    with autocommit() as connection:
        connection.execute(text("DELETE FROM webhooks"))
    job_rows.clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the dispatcher sends, in place of the broker."""
    messages: list[tuple[str, str]] = []

    def send(task: str, queue: str, calls: list[tuple[str, str]]) -> bool:
        assert (task, queue) == ("webhooks.deliver", "webhooks")
        messages.extend(calls)
        return True

    monkeypatch.setattr(dispatch, "send", send)
    return messages

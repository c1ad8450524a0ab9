"""A house with one mailbox, fetched from once, and windows of its owner and of the admin."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from stack.exchange import Exchange, inbound_call
from stack.imap import MailServer, serving
from stack.recordings import speech
from stack.up import Stack
from tests.browser import Visitor
from tests.client import ADMIN, User
from tests.console.recordings.world import BEGAN, CALLER, ELSE, HAND, LINE, MANY, OWNER, letter, long, window
from tests.console.world import PASSWORD
from tests.mailbox_corpus import sound
from tests.receiver import until
from tests.recordings_house import fetched, folder_with, kept, recordings_house, watched


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def house(browser: Any, mail: MailServer) -> Iterator[Stack]:
    env = {"MANGO_API_KEY": "key", "MANGO_API_SALT": "salt", "RECORDING_SPEECH_SECONDS": "20"}
    with recordings_house(mail, env) as stack:
        yield stack


@pytest.fixture(scope="module")
def admin(house: Stack) -> Iterator[User]:
    with User.admin(house.url) as user:
        yield user


@pytest.fixture(scope="module")
def mailbox(house: Stack, mail: MailServer, admin: User) -> str:
    """Fetched from once; the owner's recordings are there and listened to, and so are the calls."""
    exchange = Exchange(house.url, "key", "salt")
    after = [timedelta(minutes=40), timedelta(minutes=20)]
    calls = [(CALLER, BEGAN), *((CALLER, HAND + one) for one in after), (ELSE, HAND + timedelta(minutes=10))]
    for caller, at in calls:
        for kind, message in inbound_call(caller, LINE, at, rings=1, talk_seconds=75):
            exchange.send(kind, message).raise_for_status()
    many = [letter(BEGAN - timedelta(days=1, minutes=one), sound(one), "79030000000") for one in range(MANY)]
    program = letter(BEGAN, b"MZ this is a program", name="program.wav")
    folder_with(mail, "calls", *many, program, letter(HAND, long()), letter(BEGAN, speech(12)))
    account = {"username": OWNER, "password": PASSWORD}
    owner = httpx.post(f"{house.url}/api/v1/auth/register", json=account, trust_env=False).raise_for_status().json()
    mailbox_id = watched(admin, mail, "calls", owner_id=owner["id"])
    assert fetched(admin, mailbox_id)["status"] == "succeeded"
    until(lambda: len(kept(admin)) == MANY + 3 and all(one["listened"] for one in kept(admin)), 30)
    until(lambda: admin.http.get("/recordings", params={"status": "matched"}).json()["items"])
    return mailbox_id


@pytest.fixture
def owner(browser: Any, house: Stack, mailbox: str) -> Iterator[Visitor]:
    visitor = window(browser, house, OWNER)
    visitor.page.get_by_role("link", name="Recordings", exact=True).click()
    visitor.page.get_by_role("heading", name="Recordings", exact=True).wait_for()
    visitor.page.locator(".recording").first.wait_for()
    yield visitor
    visitor.close()


@pytest.fixture
def chief(browser: Any, house: Stack, mailbox: str) -> Iterator[Visitor]:
    """The admin, with the mailboxes open."""
    visitor = window(browser, house, ADMIN["username"], ADMIN["password"])
    visitor.page.get_by_role("link", name="Recordings", exact=True).click()
    visitor.page.get_by_role("link", name="Mailboxes").click()
    visitor.page.locator(".mailbox").first.wait_for()
    yield visitor
    visitor.close()

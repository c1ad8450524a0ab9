"""Logging in: names and passwords of any letters, and which answers refuse a login."""

import base64
from collections.abc import Iterator
from uuid import UUID

import pytest
from imapclient import IMAPClient
from sqlalchemy import text

from domain.errors.jobs import StepFailed
from domain.errors.recordings import MailboxLoginRefused, MailboxUnreachable
from migrations.__main__ import upgrade
from stack.imap import HOST, MailServer, serving
from stack.up import Stack, running
from storage.database import autocommit
from tests import scripted_mail
from tests.job_rows import account
from tests.mail_visits import mailbox_of, rows, visited
from tests.mailbox_corpus import letters, wanted
from tests.own_settings import settings_of
from tests.scripted_mail import Scripted


@pytest.fixture(scope="module")
def house() -> Iterator[Stack]:
    allowed = MailServer(0, "", "").settings()
    with running(servers_only=True) as stack, settings_of({**stack.env, **allowed, "MAILBOX_SECONDS": "5"}):
        upgrade()
        yield stack


@pytest.fixture
def owner(house: Stack) -> UUID:
    return account()


def kept(owner: UUID) -> set[str]:
    return {one["sha256"] for one in rows("SELECT sha256 FROM recordings WHERE owner_id = :owner", owner=owner)}


def standing(mailbox: UUID) -> tuple[bool, str | None, str | None]:
    (one,) = rows("SELECT enabled, disabled_reason, error_code FROM mailboxes WHERE id = :id", id=mailbox)
    return one["enabled"], one["disabled_reason"], one["error_code"]


@pytest.mark.parametrize(("name", "password"), [("recordings", "пароль"), ("имя", "secret"), ('my "own" name', "a\\b")])
def test_a_name_and_a_password_of_any_letters(
    owner: UUID, tmp_path_factory: pytest.TempPathFactory, name: str, password: str
) -> None:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log", name, password) as server:
        client = IMAPClient(HOST, server.port, ssl=False)
        client.plain_login(name, password)
        client.append("INBOX", letters(1)[0].raw)
        client.logout()
        visited(owner, mailbox_of(owner, server))
    assert kept(owner) == wanted(letters(1))


def test_a_server_that_takes_only_ascii_is_told_nothing_else(owner: UUID) -> None:
    with scripted_mail.serving(Scripted(b"OK")) as script:
        mailbox = mailbox_of(owner, script.server, secret="пароль")
        visited(owner, mailbox)
        assert script.logins == []
    assert standing(mailbox) == (False, "login_refused", "mailbox_login_refused")


def test_plain_is_said_where_login_is_not_allowed(owner: UUID) -> None:
    script = Scripted(b"NO [AUTHENTICATIONFAILED] no", b"IMAP4rev1 LOGINDISABLED AUTH=PLAIN")
    with scripted_mail.serving(script):
        visited(owner, mailbox_of(owner, script.server, username="имя"))
    (said,) = [line for line in script.heard if b" " not in line.strip()]
    assert base64.b64decode(said).decode() == "\0имя\0secret"


def test_a_name_is_one_word_to_the_server(owner: UUID) -> None:
    with scripted_mail.serving(Scripted(b"NO no")) as script:
        visited(owner, mailbox_of(owner, script.server, username="my name"))
        (said,) = script.logins
    assert said.partition(b" ")[2] == b'LOGIN "my name" "secret"\r\n'


def test_a_line_end_that_was_taken_before_begins_no_command(owner: UUID) -> None:
    """New ones are refused by the API (test_mailboxes)."""
    with scripted_mail.serving(Scripted(b"OK")) as script:
        mailbox = mailbox_of(owner, script.server)
        with autocommit() as connection:
            connection.execute(
                text("UPDATE mailboxes SET username = E'a\\r\\nX9 DELETE INBOX' WHERE id = :id"), {"id": mailbox}
            )
        visited(owner, mailbox)
        assert not [line for line in script.heard if b"DELETE" in line]
    assert standing(mailbox) == (False, "login_refused", "mailbox_login_refused")


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (b"NO [AUTHENTICATIONFAILED] no", True),
        (b"NO Invalid login", True),
        (b"NO [ALERT] Invalid credentials (Failure)", True),
        (b"NO [ALERT] Application-specific password required: https://support.google.com/x (Failure)", True),
        (b"NO [ALERT] Too many simultaneous connections. (Failure)", False),
        (b"NO [ALERT] Account exceeded command or bandwidth limits. (Failure)", False),
        (b"NO [UNAVAILABLE] Temporary authentication failure.", False),
        (b"NO [INUSE] later", False),
        (b"NO [LIMIT] later", False),
        (b"NO [CONTACTADMIN] later", False),
        (b"NO [SERVERBUG] later", False),
    ],
)
def test_which_answers_refuse_a_login_and_which_pass(owner: UUID, answer: bytes, refused: bool) -> None:
    with scripted_mail.serving(Scripted(answer)) as script:
        mailbox = mailbox_of(owner, script.server)
        try:
            outcome: object = visited(owner, mailbox)
        except StepFailed as error:
            outcome = error
        assert len(script.logins) == 1
    if refused:
        assert isinstance(getattr(outcome, "error", None), MailboxLoginRefused)
        assert standing(mailbox) == (False, "login_refused", "mailbox_login_refused")
    else:
        assert isinstance(outcome, MailboxUnreachable)
        assert standing(mailbox) == (True, None, "mailbox_unreachable")

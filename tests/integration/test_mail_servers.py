"""Getting into mailboxes: certificates against names, STARTTLS before the password, access tokens, keys that change."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from domain.errors.jobs import StepFailed
from domain.errors.recordings import MailboxDisabled, MailboxInsecure, MailboxLoginRefused, MailboxUnreachable
from domain.pipelines import Failed
from migrations.__main__ import upgrade
from stack.imap import MailServer, serving
from stack.up import Stack, running
from tests.job_rows import account
from tests.mail_door import Authority, door
from tests.mail_visits import mailbox_of, ordered, polled, rows, visited
from tests.mailbox_corpus import letters, wanted
from tests.own_settings import settings_of

ALLOWED = {"MAILBOX_PORTS": "any", "MAILBOX_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128", "MAILBOX_SECONDS": "5"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def house(authority: Authority) -> Iterator[Stack]:
    with running(servers_only=True) as stack, settings_of({**stack.env, **ALLOWED}):
        upgrade()
        yield stack


@pytest.fixture
def owner(house: Stack) -> UUID:
    return account()


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's authority is one of the machine's, as OpenSSL wants it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        server.deliver(*(one.raw for one in letters(3)))
        yield server


@pytest.fixture(scope="module")
def starttls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """As ``plain``, but nobody is let in before STARTTLS."""
    log = tmp_path_factory.mktemp("imap") / "imap.log"
    with serving(log, certificate=authority.certificate("localhost")) as server:
        yield server


def kept(owner: UUID) -> set[str]:
    return {one["sha256"] for one in rows("SELECT sha256 FROM recordings WHERE owner_id = :owner", owner=owner)}


def standing(mailbox_id: UUID) -> dict[str, object]:
    (row,) = rows("SELECT enabled, disabled_reason, failures, error_code FROM mailboxes WHERE id = :id", id=mailbox_id)
    return row


# ---------------------------------------------------------------- TLS


def test_tls_by_a_certificate_for_the_name(owner: UUID, plain: MailServer, authority: Authority, trusted: None) -> None:
    with door(plain, authority.context("localhost")) as entrance:
        mailbox = mailbox_of(owner, plain, host="localhost", port=entrance.port, security="tls")
        visited(owner, mailbox)
    assert kept(owner) == wanted(letters(3))


@pytest.mark.parametrize(
    ("host", "named", "known"),
    [
        ("localhost", "mail.example.com", True),  # another's certificate
        ("127.0.0.1", "localhost", True),  # the address is not the name
        ("localhost", "localhost", False),  # signed by nobody we trust
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_before_the_password(
    owner: UUID,
    plain: MailServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    named: str,
    known: bool,
) -> None:
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with door(plain, authority.context(named)) as entrance:
        mailbox = mailbox_of(owner, plain, host=host, port=entrance.port, security="tls")
        with pytest.raises(MailboxUnreachable, match=r"(?i)certificate"):
            visited(owner, mailbox)
        assert not entrance.heard
    assert standing(mailbox) == {
        "enabled": True,
        "disabled_reason": None,
        "failures": 1,
        "error_code": "mailbox_unreachable",
    }, "a wrong certificate is for somebody to mend on the server, and says nothing against the password"


def test_a_port_without_tls_is_no_tls(owner: UUID, plain: MailServer, trusted: None) -> None:
    mailbox = mailbox_of(owner, plain, host="localhost", security="tls")
    with pytest.raises(MailboxUnreachable):
        visited(owner, mailbox)


def test_starttls_comes_before_the_password(owner: UUID, starttls: MailServer, trusted: None) -> None:
    mailbox = mailbox_of(owner, starttls, host="localhost", security="starttls")
    assert not isinstance(visited(owner, mailbox), Failed)


def test_starttls_looks_at_the_certificate_too(owner: UUID, starttls: MailServer) -> None:
    mailbox = mailbox_of(owner, starttls, host="localhost", security="starttls")
    with pytest.raises(MailboxUnreachable, match=r"(?i)certificate"):
        visited(owner, mailbox)


def test_a_server_that_leaves_starttls_out_hears_no_password(owner: UUID, plain: MailServer, trusted: None) -> None:
    """Somebody in between may strip the offer (RFC 8314, 3.2)."""
    with door(plain) as entrance:
        mailbox = mailbox_of(owner, plain, host="localhost", port=entrance.port, security="starttls")
        with pytest.raises(StepFailed):
            visited(owner, mailbox)
        assert b"STARTTLS" in entrance.heard or b"CAPABILITY" in entrance.heard
        assert plain.password.encode() not in entrance.heard
        assert b"LOGIN" not in entrance.heard.upper()
    assert standing(mailbox)["enabled"], "nobody has said that the password is wrong"


def test_without_tls_only_where_it_is_allowed(owner: UUID, plain: MailServer) -> None:
    mailbox = mailbox_of(owner, plain, security="none")
    with pytest.raises(StepFailed, match=str(MailboxInsecure())[:20]):
        visited(owner, mailbox)


# ---------------------------------------------------------------- access tokens


def test_xoauth2_signs_in_with_a_token(owner: UUID, plain: MailServer, authority: Authority, trusted: None) -> None:
    with door(plain, authority.context("localhost"), token="ya29.token") as entrance:
        place = {"host": "localhost", "port": entrance.port, "security": "tls", "auth": "xoauth2"}
        visited(owner, mailbox_of(owner, plain, **place, secret="ya29.token"))
        assert kept(owner) == wanted(letters(3))
        expired = mailbox_of(owner, plain, **place, secret="ya29.expired")
        outcome = polled(ordered(owner, expired))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, MailboxLoginRefused)
    assert "ya29" not in str(outcome.error)
    assert (standing(expired)["enabled"], standing(expired)["disabled_reason"]) == (False, "login_refused")


# ---------------------------------------------------------------- keys of secrets at rest


def test_keys_change_without_anybody_typing_passwords_again(
    owner: UUID, house: Stack, plain: MailServer, tmp_path: Path
) -> None:
    old, new = "an old key of the mailboxes" * 2, "a new key of the mailboxes" * 2
    env = {**house.env, **ALLOWED, "MAILBOX_PLAINTEXT": "true"}
    with settings_of({**env, "MAILBOX_ENCRYPTION_KEYS": old}):
        mailbox = mailbox_of(owner, plain)
    with settings_of({**env, "MAILBOX_ENCRYPTION_KEYS": f"{new},{old}"}):
        visited(owner, mailbox)
        assert kept(owner) == wanted(letters(3))
        later = mailbox_of(owner, plain)
    with settings_of({**env, "MAILBOX_ENCRYPTION_KEYS": new}):
        visited(owner, later)  # what was sealed since the change needs the new one alone
        with pytest.raises(MailboxDisabled):
            visited(owner, mailbox)
        assert (standing(mailbox)["enabled"], standing(mailbox)["disabled_reason"]) == (False, "secret_unreadable")
    assert os.environ.get("MAILBOX_ENCRYPTION_KEYS") is None

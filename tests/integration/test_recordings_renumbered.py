"""Numbers that mean other messages than before: a message is known only where, and by what, it was decided about."""

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from uuid import UUID

import msgspec
import pytest

from domain.errors.recordings import MailboxUnreachable
from domain.identity import new_id
from domain.recordings.mailboxes import MailboxChange, Rules
from migrations.__main__ import upgrade
from stack.imap import MailServer, serving
from stack.up import Stack, running
from storage.database import transaction
from storage.recordings import mailboxes
from tests.faults.proxy import Proxy
from tests.job_rows import account
from tests.mail_visits import Heedful, mailbox_of, ordered, polled, rows, visited
from tests.mailbox_corpus import digest, sound
from tests.own_settings import settings_of
from workers.recordings.fetch import fetch
from workers.recordings.poll import poll


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture(scope="module")
def house(mail: MailServer) -> Iterator[Stack]:
    with running(servers_only=True) as stack, settings_of({**stack.env, **mail.settings(), "MAILBOX_SECONDS": "5"}):
        upgrade()
        yield stack


@pytest.fixture
def owner(house: Stack) -> UUID:
    return account()


def letter(n: int, *audio: bytes) -> bytes:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "auto-mailer@mangotele.com", "b@example.com", "Запись"
    made["Message-ID"] = f"<y{n}@x>"
    made.set_content("t")
    for place, one in enumerate(audio):
        made.add_attachment(one, "audio", "wav", filename=f"{place}.wav")
    return made.as_bytes()


def filled(mail: MailServer, some: list[bytes], name: str | None = None) -> str:
    """A folder with the letters, always at the same times; made anew where it is there."""
    name = name or f"f{new_id()}"
    with mail.client() as client:
        before = None
        if client.folder_exists(name):
            before = client.folder_status(name, ["UIDVALIDITY"])[b"UIDVALIDITY"]
            client.delete_folder(name)
        while True:  # the same number in the same second would be the server's mistake
            client.create_folder(name)
            if client.folder_status(name, ["UIDVALIDITY"])[b"UIDVALIDITY"] != before:
                break
            client.delete_folder(name)
            time.sleep(0.2)
        recent = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        for n, one in enumerate(some):
            client.append(name, one, msg_time=recent + timedelta(minutes=n))
    return name


def change(mailbox: UUID, **given: object) -> None:
    with transaction() as connection:
        mailboxes.change(connection, mailbox, msgspec.convert(given, MailboxChange))


def kept(owner: UUID) -> set[str]:
    return {one["sha256"] for one in rows("SELECT sha256 FROM recordings WHERE owner_id = :owner", owner=owner)}


def states(mailbox: UUID) -> list[tuple[str, str | None]]:
    found = rows("SELECT state, reason FROM mail_messages WHERE mailbox_id = :id ORDER BY uidvalidity, uid", id=mailbox)
    return [(one["state"], one["reason"]) for one in found]


# ---------------------------------------------------------------- other numbers


@pytest.mark.parametrize("fetched", ["nothing", "half"])
def test_what_waited_when_the_folder_was_numbered_anew_is_fetched_by_its_new_numbers(
    owner: UUID, mail: MailServer, fetched: str
) -> None:
    audio = [sound(5000 + n + len(fetched) * 100, 30) for n in range(4)]
    some = [letter(n + len(fetched) * 10, one) for n, one in enumerate(audio)]
    folder = filled(mail, some)
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder, port=proxy.port, after_action="move", move_to=f"{folder}-kept")
        job = ordered(owner, mailbox)
        polled(job)
        if fetched == "half":
            proxy.faults.drop_after = 1_500_000
            with contextlib.suppress(MailboxUnreachable):
                fetch(job, Heedful())
        had = len(kept(owner))
        assert had < 4
        proxy.faults.drop_after = None
        filled(mail, some, folder)
        visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in audio}
    assert ("skipped", "gone") not in states(mailbox)
    with mail.client() as client:
        assert client.folder_status(folder, ["MESSAGES"])[b"MESSAGES"] == 0
        assert client.folder_status(f"{folder}-kept", ["MESSAGES"])[b"MESSAGES"] == 4


def test_what_was_kept_before_is_not_fetched_again_but_moved(owner: UUID, mail: MailServer) -> None:
    audio = [sound(5600 + n) for n in range(2)]
    some = [letter(100 + n, one) for n, one in enumerate(audio)]
    folder = filled(mail, some)
    mailbox = mailbox_of(owner, mail, folder=folder)
    visited(owner, mailbox)
    filled(mail, some, folder)
    visited(owner, mailbox)
    assert states(mailbox) == [("stored", None)] * 2 + [("duplicate", "same_message")] * 2


# ---------------------------------------------------------------- another account, another folder


def test_the_same_numbers_on_another_server_are_other_messages(
    owner: UUID, mail: MailServer, other: MailServer
) -> None:
    a, b = [sound(6100 + n) for n in range(3)], [sound(6200 + n) for n in range(4)]
    folder = filled(mail, [letter(200 + n, one) for n, one in enumerate(a)])
    filled(other, [letter(300 + n, one) for n, one in enumerate(b)], folder)
    mailbox = mailbox_of(owner, mail, folder=folder)
    visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in a}
    # both servers numbered it alike: Dovecot does within a second, this one takes numbers by chance
    ours, theirs = _numbered(mail, folder), _numbered(other, folder)
    for table in ("mail_messages", "mailboxes"):
        rows(
            f"UPDATE {table} SET uidvalidity = :theirs WHERE uidvalidity = :ours RETURNING 1", ours=ours, theirs=theirs
        )
    change(mailbox, port=other.port)
    visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in a + b}
    assert states(mailbox) == [("stored", None)] * 7


def test_what_waits_is_never_fetched_from_another_account(owner: UUID, mail: MailServer, other: MailServer) -> None:
    folder = filled(mail, [letter(400, sound(6300))])
    filled(other, [letter(401, sound(6301))], folder)
    mailbox = mailbox_of(owner, mail, folder=folder)
    job = ordered(owner, mailbox)
    polled(job)
    change(mailbox, port=other.port)
    fetch(job, Heedful())
    assert kept(owner) == set()
    visited(owner, mailbox)
    assert kept(owner) == {digest(sound(6301))}


def test_a_look_during_which_the_mailbox_was_changed_says_nothing_of_the_new_one(
    owner: UUID, mail: MailServer, other: MailServer
) -> None:
    folder = filled(mail, [letter(450, sound(6400)), letter(451, sound(6401))])
    filled(other, [letter(452, sound(6402))], folder)
    mailbox = mailbox_of(owner, mail, folder=folder)
    outcome = poll(ordered(owner, mailbox), Heedful())
    change(mailbox, port=other.port)
    with transaction() as connection:
        for effect in outcome.effects:  # type: ignore[union-attr]  # it is Done
            effect(connection)
    assert states(mailbox) == []
    visited(owner, mailbox)
    assert kept(owner) == {digest(sound(6402))}


def test_another_folder_and_back_again(owner: UUID, mail: MailServer) -> None:
    audio = [sound(6500 + n) for n in range(3)]
    a, b = filled(mail, [letter(500 + n, one) for n, one in enumerate(audio)]), filled(mail, [])
    mailbox = mailbox_of(owner, mail, folder=a)
    polled(ordered(owner, mailbox))
    for folder in (b, a):
        change(mailbox, folder=folder)
        visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in audio}


# ---------------------------------------------------------------- other rules


def test_other_rules_take_what_the_old_ones_left(owner: UUID, mail: MailServer) -> None:
    first, second = sound(6601), sound(6602)
    folder = filled(mail, [letter(600, first, second), letter(601, sound(6603))])
    mailbox = mailbox_of(owner, mail, folder=folder, rules={"attachment": "0*"})
    visited(owner, mailbox)
    assert kept(owner) == {digest(first), digest(sound(6603))}
    deleted = rows("DELETE FROM recordings WHERE sha256 = :sha RETURNING sha256", sha=digest(first))
    assert deleted
    change(mailbox, rules=msgspec.to_builtins(Rules(attachment="*")))
    visited(owner, mailbox)
    assert kept(owner) == {digest(second), digest(sound(6603))}, "the other part, and only that"
    assert states(mailbox) == [("stored", None)] * 2
    visited(owner, mailbox)
    assert rows("SELECT failures FROM mailboxes WHERE id = :id", id=mailbox) == [{"failures": 0}]


def test_what_is_too_large_goes_without_the_rest_of_its_letter(
    owner: UUID, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = sound(6701), sound(6702, 30)
    folder = filled(mail, [letter(700, large, small), letter(701, large)])
    mailbox = mailbox_of(owner, mail, folder=folder)
    with monkeypatch.context() as limited:
        for name in ("workers.recordings.poll", "workers.recordings.parts"):
            module = sys.modules[name]
            config = msgspec.structs.replace(module.settings(), recording_max_bytes=200_000)
            limited.setattr(module, "settings", lambda config=config: config)
        visited(owner, mailbox)
    assert kept(owner) == {digest(small)}
    assert states(mailbox) == [("stored", "too_large"), ("skipped", "too_large")]
    job = ordered(owner, mailbox, 30)  # larger ones are allowed now, and somebody asks
    polled(job)
    fetch(job, Heedful())
    assert kept(owner) == {digest(small), digest(large)}


def _numbered(mail: MailServer, folder: str) -> int:
    with mail.client() as client:
        number: int = client.folder_status(folder, ["UIDVALIDITY"])[b"UIDVALIDITY"]
        return number

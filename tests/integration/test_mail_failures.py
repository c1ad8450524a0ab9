"""Lines that break, and letters that are traps: what is whose fault, and what it costs."""

import base64
import contextlib
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from uuid import UUID

import pytest
from sqlalchemy import text

from domain.errors.recordings import MailboxUnreachable
from domain.identity import new_id
from domain.pipelines import Done, JobInStep, Outcome
from migrations.__main__ import upgrade
from stack.imap import MailServer, serving
from stack.up import Stack, running
from storage.database import autocommit
from storage.recordings.imap import connected, session
from storage.recordings.mailboxes import access
from tests import dovecot
from tests.faults.proxy import Proxy
from tests.job_rows import account
from tests.mail_visits import Heedful, mailbox_of, ordered, polled, rows, visited
from tests.mailbox_corpus import digest, sound
from tests.own_settings import settings_of
from workers.recordings.fetch import fetch


@pytest.fixture(scope="module", params=["pymap", "dovecot"])
def mail(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    if request.param == "pymap":
        with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
            yield server
        return
    if dovecot.BINARY is None:
        pytest.skip("needs Debian's dovecot-imapd")
    with dovecot.serving() as server:
        yield server


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    allowed = MailServer(0, "", "").settings()
    with running(servers_only=True) as stack, settings_of({**stack.env, **allowed, "MAILBOX_SECONDS": "5"}):
        upgrade()
        yield stack


@pytest.fixture
def owner(house: Stack) -> UUID:
    return account()


def letter(audio: bytes, sender: str = "auto-mailer@mangotele.com") -> bytes:
    made = EmailMessage()
    made["To"], made["Subject"] = "b@example.com", "Запись"
    made["Message-ID"] = f"<{new_id()}@x>"
    made.set_content("t")
    made.add_attachment(audio, "audio", "wav", filename="0.wav")
    return f"From: {sender}\n".encode() + made.as_bytes()


def folder_with(mail: MailServer, *raw: bytes) -> str:
    name = f"f{new_id()}"
    with mail.client() as client:
        client.create_folder(name)
    mail.deliver(*raw, folder=name)
    return name


def kept(owner: UUID) -> set[str]:
    return {one["sha256"] for one in rows("SELECT sha256 FROM recordings WHERE owner_id = :owner", owner=owner)}


def states(mailbox: UUID) -> list[tuple[str, str | None, int]]:
    found = rows("SELECT state, reason, failures FROM mail_messages WHERE mailbox_id = :id ORDER BY uid", id=mailbox)
    return [(one["state"], one["reason"], one["failures"]) for one in found]


def standing(mailbox: UUID) -> tuple[bool, str | None, str | None]:
    (one,) = rows("SELECT enabled, disabled_reason, error_code FROM mailboxes WHERE id = :id", id=mailbox)
    return one["enabled"], one["disabled_reason"], one["error_code"]


def time_passes(mailbox: UUID) -> None:
    with autocommit() as connection:
        connection.execute(
            text("UPDATE mail_messages SET try_after = now() WHERE mailbox_id = :id AND try_after > now()"),
            {"id": mailbox},
        )


def stubborn(job: JobInStep) -> Outcome:
    """The step as the engine runs it: again after each failure that may pass."""
    for _ in range(6):
        with contextlib.suppress(MailboxUnreachable):
            return fetch(job, Heedful())
    return fetch(job, Heedful())


# ---------------------------------------------------------------- lines that break off in the middle of a message


def test_a_line_that_breaks_at_a_message_again_and_again_costs_it_nothing_but_time(
    owner: UUID, mail: MailServer
) -> None:
    large, small = sound(8101, 60), sound(8102)
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder_with(mail, letter(large), letter(small)), port=proxy.port)
        proxy.faults.drop_after = 300_000
        job = ordered(owner, mailbox)
        polled(job)
        outcome = stubborn(job)
        assert kept(owner) == {digest(small)}, "it holds up nobody"
        assert isinstance(outcome, Done)
        assert outcome.message == "1 of 1 messages, 1 to be tried again later"
        job = ordered(owner, mailbox)
        polled(job)
        stubborn(job)
        assert states(mailbox)[0] == ("claimed", None, 1), "one failure, however often it is looked at so soon"
        proxy.faults.drop_after = None
        time_passes(mailbox)
        visited(owner, mailbox)
    assert kept(owner) == {digest(large), digest(small)}


@pytest.mark.parametrize("asked", ["days back", "a rerun"])
def test_what_was_given_up_is_tried_again_when_somebody_asks(owner: UUID, mail: MailServer, asked: str) -> None:
    large = sound(8200 + len(asked), 60)
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder_with(mail, letter(large)), port=proxy.port)
        proxy.faults.drop_after = 300_000
        for n in (1, 2, 3):
            job = ordered(owner, mailbox)
            polled(job)
            stubborn(job)
            assert states(mailbox)[0][2] == n
            time_passes(mailbox)
        assert states(mailbox) == [("failed", "unreadable", 3)]
        proxy.faults.drop_after = None
        visited(owner, mailbox)
        assert states(mailbox) == [("failed", "unreadable", 3)], "the schedule has given it up"
        again = ordered(owner, mailbox, 30 if asked == "days back" else None)
        if asked == "a rerun":
            with autocommit() as connection:
                connection.execute(
                    text("UPDATE jobs SET parent_id = :old WHERE id = :id"), {"old": job.id, "id": again.id}
                )
        polled(again)
        fetch(again, Heedful())
    assert kept(owner) == {digest(large)}


# ---------------------------------------------------------------- letters that are traps


def many_parts() -> bytes:
    part = b'--B\r\nContent-Type: text/plain; name="' + b"x" * 300 + b'"\r\n\r\na\r\n'
    head = b"From: spam@example.com\r\nSubject: many\r\nMIME-Version: 1.0\r\n"
    return head + b"Content-Type: multipart/mixed; boundary=B\r\n\r\n" + part * 4000 + b"--B--\r\n"


def many_recipients() -> bytes:
    to = b",\r\n ".join(b"user%d@example.com" % one for one in range(30_000))
    return b"From: spam@example.com\r\nTo: " + to + b"\r\nSubject: many\r\nContent-Type: text/plain\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def sturdy() -> Iterator[MailServer]:
    """pymap itself takes longer over such letters than anybody waits."""
    if dovecot.BINARY is None:
        pytest.skip("needs Debian's dovecot-imapd")
    with dovecot.serving() as server:
        yield server


def test_an_answer_without_an_end_is_one_messages_fault(owner: UUID, mail: MailServer) -> None:
    audio = [sound(8250 + n) for n in range(3)]
    folder = folder_with(mail, *(letter(one) for one in audio))
    with mail.client() as client:
        client.select_folder(folder, readonly=True)
        last = max(client.search())
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder, port=proxy.port)
        proxy.faults.lose_answer_to = f"{last} (ENVELOPE".encode()
        proxy.faults.endless, proxy.faults.lose_answers = 1_200_000, 2
        visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in audio[:2]}
    assert states(mailbox)[2] == ("skipped", "long_description", 0)


@pytest.mark.parametrize("trap", [many_parts, many_recipients])
def test_a_letter_whose_description_has_no_end_stops_no_other(
    owner: UUID, sturdy: MailServer, trap: Callable[[], bytes]
) -> None:
    mail, audio = sturdy, [sound(8300 + n) for n in range(3)]
    folder = folder_with(mail, letter(audio[0]), trap(), *(letter(one) for one in audio[1:]))
    mailbox = mailbox_of(owner, mail, folder=folder)
    with autocommit() as connection:
        found = access(connection, mailbox)
    assert found is not None
    with connected(found) as visit:
        visit.open(readonly=True)
        uids = visit.search(found.rules, days=30)
        (look,) = visit.described(uids, found.rules)
    assert [len(look.found), len(look.bad)] == [3, 1], "what `check` shows"
    visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in audio}
    assert [one for one in states(mailbox) if one[0] != "stored"] == [("skipped", "long_description", 0)]
    assert standing(mailbox) == (True, None, None)
    visited(owner, mailbox)
    assert len(states(mailbox)) == 4


def test_more_traps_than_one_visit_will_have_end_all_the_same(
    owner: UUID, sturdy: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RECONNECTS", 2)
    audio = sound(8350)
    mailbox = mailbox_of(owner, sturdy, folder=folder_with(sturdy, *[many_recipients()] * 5, letter(audio)))
    visits = 0
    while not kept(owner):
        visited(owner, mailbox)
        visits += 1
        assert visits < 5
    assert [one[1] for one in states(mailbox)] == ["long_description"] * 5 + [None]
    assert visits > 1


def test_a_server_that_dies_at_one_description_loses_no_other(owner: UUID, mail: MailServer) -> None:
    audio = [sound(8400 + n) for n in range(3)]
    folder = folder_with(mail, *(letter(one) for one in audio))
    with mail.client() as client:
        client.select_folder(folder, readonly=True)
        last = max(client.search())
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder, port=proxy.port)
        proxy.faults.lose_answer_to = f"{last} (ENVELOPE".encode()  # of all three together, and by itself
        for n in (1, 2):
            proxy.faults.lose_answers = 100
            visited(owner, mailbox)
            assert kept(owner) == {digest(one) for one in audio[:2]}
            assert states(mailbox)[2] == ("claimed", None, n)
            proxy.faults.lose_answers = 0
            visited(owner, mailbox)
            assert states(mailbox)[2] == ("claimed", None, n), "it is not its turn"
            time_passes(mailbox)
        visited(owner, mailbox)
    assert kept(owner) == {digest(one) for one in audio}


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize("charset", ["utf-8", "koi8-r", "x-nobody"])
def test_a_sender_is_known_by_name_whatever_its_charset(owner: UUID, mail: MailServer, charset: str) -> None:
    audio = sound(8600 + len(charset))
    name = f"=?{charset}?B?{base64.b64encode(b'Mango Office').decode()}?="
    folder = folder_with(mail, letter(audio, f"{name} <noreply@example.com>"), letter(sound(8699)))
    visited(owner, mailbox_of(owner, mail, folder=folder, rules={"senders": ["mango office"]}))
    assert kept(owner) == {digest(audio)}
    other = account()
    visited(other, mailbox_of(other, mail, folder=folder, rules={"senders": ["noreply@example.com"]}))
    assert kept(other) == {digest(audio)}, "asked of the server"

"""The steps that fetch, in this process: connections that break off in the middle, bad messages, and what is kept."""

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import text

from domain.errors.neighbours import StorageUnavailable
from domain.errors.recordings import MailboxUnreachable
from domain.identity import new_id
from migrations.__main__ import upgrade
from stack.imap import MailServer, serving
from stack.up import Stack, running
from storage import objects, reconciliation
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.recordings import keeping, messages
from tests import dovecot
from tests.faults.proxy import Proxy
from tests.job_rows import account
from tests.mail_visits import Heedful, mailbox_of, ordered, polled, rows, visited
from tests.mailbox_corpus import Letter, digest, letters, sound, wanted
from tests.own_settings import settings_of
from workers import files, recordings
from workers.files import reconcile
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
def house(mail: MailServer) -> Iterator[Stack]:
    with running(servers_only=True) as stack, settings_of({**stack.env, **mail.settings(), "MAILBOX_SECONDS": "5"}):
        upgrade()
        yield stack


@pytest.fixture
def owner(house: Stack) -> Iterator[UUID]:
    yield account()
    with autocommit() as connection:
        for table in ("recordings", "mailboxes", "leftovers", "housekeeping"):
            connection.execute(text(f"DELETE FROM {table}"))
    objects.delete(objects.below("recordings/"))


def folder_with(mail: MailServer, some: list[Letter]) -> str:
    name = f"f{new_id()}"
    with mail.client() as client:
        client.create_folder(name)
    mail.deliver(*(one.raw for one in some), folder=name)
    return name


def noisy(number: int, seconds: float) -> list[Letter]:
    """Letters alike but for their audio, of which each has its own."""
    made = []
    for n, letter in enumerate([one for one in letters(18 * number) if len(one.audio) == 1][::15][:number]):
        audio = sound(9000 + n, seconds)
        made.append(_with(letter, audio))
    return made


def _with(letter: Letter, audio: bytes) -> Letter:
    from tests.integration.test_recordings import _holding

    return Letter(_holding(audio), (audio,))


def kept(owner: UUID) -> list[str]:
    return sorted(one["sha256"] for one in rows("SELECT sha256 FROM recordings WHERE owner_id = :owner", owner=owner))


def states(mailbox: UUID) -> dict[str, int]:
    found = rows("SELECT state, count(*) FROM mail_messages WHERE mailbox_id = :id GROUP BY state", id=mailbox)
    return {one["state"]: one["count"] for one in found}


# ---------------------------------------------------------------- every kind of letter, every server


def test_every_kind_of_letter(owner: UUID, mail: MailServer) -> None:
    some = letters(36)
    mailbox = mailbox_of(owner, mail, folder=folder_with(mail, some), after_action="seen")
    visited(owner, mailbox)
    assert kept(owner) == sorted(wanted(some))
    for one in rows("SELECT sha256, object_key, size FROM recordings"):
        assert digest(objects.read(one["object_key"], 10**6)) == one["sha256"]
    assert set(states(mailbox)) == {"stored", "duplicate"}
    visited(owner, mailbox)
    assert kept(owner) == sorted(wanted(some))


# ---------------------------------------------------------------- connections that break off


def test_a_connection_that_breaks_off_in_the_middle_loses_and_doubles_nothing(owner: UUID, mail: MailServer) -> None:
    some = noisy(12, 8)  # 170 KB each as mail
    folder = folder_with(mail, some)
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder, port=proxy.port)
        job = ordered(owner, mailbox)
        polled(job)
        broken = 0
        for carried in (100_000, 700_000, 900_000):  # in the first answer, and within later ones
            proxy.faults.drop_after = carried
            with contextlib.suppress(MailboxUnreachable):
                fetch(job, Heedful())
                continue
            broken += 1
            assert set(kept(owner)) <= wanted(some)
        assert broken == 3
        assert states(mailbox).keys() <= {"claimed", "stored"}, "the line was bad, no message was"
        proxy.faults.drop_after = None
        _an_hour_later()
        fetch(job, Heedful())
    assert kept(owner) == sorted(wanted(some))
    assert states(mailbox) == {"stored": 12}


def test_a_message_that_breaks_off_each_time_holds_up_nobody(owner: UUID, mail: MailServer) -> None:
    some = noisy(4, 0.3)
    with Proxy(mail.port) as proxy:
        mailbox = mailbox_of(owner, mail, folder=folder_with(mail, some), port=proxy.port)
        job = ordered(owner, mailbox)
        polled(job)
        (bad, *_) = [one["uid"] for one in rows("SELECT uid FROM mail_messages WHERE mailbox_id = :id", id=mailbox)]
        uids = ",".join(str(one["uid"]) for one in rows("SELECT uid FROM mail_messages ORDER BY uid"))
        proxy.faults.lose_answers = 100
        for asked in (f"FETCH {uids} (", *[f"FETCH {bad} ("] * messages.TRIES):
            proxy.faults.lose_answer_to = asked.encode()
            with pytest.raises(MailboxUnreachable):
                fetch(job, Heedful())
            if asked != f"FETCH {uids} (":
                fetch(job, Heedful())  # the others
                _an_hour_later()
    assert states(mailbox) == {"failed": 1, "stored": 3}
    assert len(kept(owner)) == 3


# ---------------------------------------------------------------- kept for so long


def test_old_audio_goes_with_its_object_and_who_listened_stays_known(
    owner: UUID, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = letters(4)
    visited(owner, mailbox_of(owner, mail, folder=folder_with(mail, some)))
    (old, *newer) = rows("SELECT id, object_key FROM recordings ORDER BY id")
    with autocommit() as connection:
        values = {"id": old["id"], "owner": owner}
        connection.execute(text("UPDATE recordings SET created_at = now() - interval '9 days' WHERE id = :id"), values)
        connection.execute(
            text("INSERT INTO audio_accesses (recording_id, account_id, username) VALUES (:id, :owner, 'anna')"), values
        )
    recordings.remove_old()
    assert len(rows("SELECT FROM recordings")) == 4, "by default nothing goes"
    config = msgspec.structs.replace(settings(), recording_retention_seconds=7 * 24 * 3600.0)
    monkeypatch.setattr(recordings, "settings", lambda: config)
    recordings.remove_old()
    assert {one["id"] for one in rows("SELECT id FROM recordings")} == {one["id"] for one in newer}
    assert sorted(objects.below("recordings/")) == sorted(one["object_key"] for one in newer)
    assert rows("SELECT username FROM audio_accesses WHERE recording_id = :id", id=old["id"]) == [{"username": "anna"}]


# ---------------------------------------------------------------- rows and objects compared


def test_audio_that_nothing_names_goes_and_names_without_audio_are_told_of(
    owner: UUID, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited(owner, mailbox_of(owner, mail, folder=folder_with(mail, letters(3))))
    named = sorted(one["object_key"] for one in rows("SELECT object_key FROM recordings"))
    objects.put("recordings/of-nobody", b"a worker has died before its row was committed")
    _aged(monkeypatch, 0.001)
    reconcile()
    assert sorted(objects.below("recordings/")) == named
    objects.delete(named[:1])
    reconcile()
    (found,) = rows("SELECT found_before, total FROM housekeeping WHERE name = 'rows.recordings'")
    assert 1 in found.values(), found
    assert len(rows("SELECT FROM recordings")) == 3, "a row is nothing to delete by itself"


def test_what_was_swept_meanwhile_is_not_named_afterwards(owner: UUID, mail: MailServer) -> None:
    """A worker that slept between the object and its row finds the key fenced, and does it all again."""
    mailbox = mailbox_of(owner, mail, folder=folder_with(mail, letters(1)))
    job = ordered(owner, mailbox)
    polled(job)
    (claimed,) = rows("SELECT id FROM mail_messages WHERE mailbox_id = :id", id=mailbox)
    new = _new(owner, mailbox, job.id)
    with transaction() as connection:
        assert reconciliation.fence(connection, [new.object_key]) == [new.object_key]
    with pytest.raises(StorageUnavailable), autocommit() as connection:
        keeping.keep(connection, claimed["id"], [new], None)
    assert states(mailbox) == {"claimed": 1}
    fetch(job, Heedful())
    assert states(mailbox) == {"stored": 1}


def test_of_two_at_once_one_is_too_late(owner: UUID, mail: MailServer) -> None:
    mailbox = mailbox_of(owner, mail, folder=folder_with(mail, letters(1)))
    job = ordered(owner, mailbox)
    polled(job)
    (claimed,) = rows("SELECT id FROM mail_messages WHERE mailbox_id = :id", id=mailbox)
    first, second = _new(owner, mailbox, job.id), _new(owner, mailbox, job.id)
    with autocommit() as connection:
        assert keeping.keep(connection, claimed["id"], [first], None) == []
        assert keeping.keep(connection, claimed["id"], [second], None) == [second], "to be dropped"
    assert [one["id"] for one in rows("SELECT id FROM recordings")] == [first.id]


def _an_hour_later() -> None:
    """What was put off because a connection broke off at it may be tried again."""
    with autocommit() as connection:
        connection.execute(text("UPDATE mail_messages SET try_after = now() WHERE failures > 0"))


def _aged(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    changed = msgspec.structs.replace(settings(), upload_leftover_seconds=seconds)
    monkeypatch.setattr(files, "settings", lambda: changed)


def _new(owner: UUID, mailbox: UUID, job: UUID, **more: Any) -> keeping.NewRecording:
    values = dict.fromkeys(("from_number", "to_number", "started_at", "warning"))
    return keeping.NewRecording(
        **values,
        **more,
        id=new_id(),
        owner_id=owner,
        mailbox_id=mailbox,
        part="2",
        object_key=f"recordings/{new_id()}",
        name="a.wav",
        content_type="audio/wav",
        size=1,
        sha256=str(new_id()),
        received_at=rows("SELECT now() AS now")[0]["now"],
        heard=False,
        job_id=job,
    )

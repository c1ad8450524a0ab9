"""An attachment of a hundred megabytes: fetched in flat memory, whatever the server."""

from collections.abc import Iterator
from uuid import UUID

import psutil
import pytest

from migrations.__main__ import upgrade
from stack.imap import MailServer, serving
from stack.up import running
from storage import objects
from tests import dovecot
from tests.job_rows import account
from tests.mail_visits import Heedful, mailbox_of, ordered, polled, rows
from tests.mailbox_corpus import big, digest
from tests.own_settings import settings_of
from workers.recordings.fetch import fetch

MIB = 1024**2
SIZE = 100 * MIB
MOST = 48 * MIB  # two pieces of 4 MiB as they come and as they are, parts of 8 MiB, and what the allocator keeps


class Watchful(Heedful):
    """Looks at this process's memory at every checkpoint: with each piece that is read, and each that is stored."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.idle = self.peak = self._process.memory_info().rss
        self.looks = 0

    def checkpoint(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)
        self.looks += 1


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    if dovecot.BINARY is not None:
        with dovecot.serving() as server:
            yield server
        return
    with serving(tmp_path_factory.mktemp("imap") / "imap.log") as server:
        yield server


@pytest.fixture
def owner(mail: MailServer) -> Iterator[UUID]:
    with running(servers_only=True) as stack, settings_of({**stack.env, **mail.settings()}):
        upgrade()
        yield account()


def test_a_hundred_megabytes_in_flat_memory(owner: UUID, mail: MailServer) -> None:
    made = list(big(6, SIZE))
    audio = made[0].audio[0]
    wanted, size = digest(audio), len(audio)
    mail.deliver(made[0].raw)
    made.clear()
    del audio
    mailbox = mailbox_of(owner, mail)
    job = ordered(owner, mailbox)
    polled(job)
    context = Watchful()
    fetch(job, context)
    (kept,) = rows("SELECT sha256, size, object_key FROM recordings")
    assert (kept["sha256"], kept["size"]) == (wanted, size)
    assert objects.size_of(kept["object_key"]) == size
    assert context.looks > SIZE / (8 * MIB), "it was looked at all the way"
    assert context.peak - context.idle < MOST

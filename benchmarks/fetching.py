"""Fetching recordings into the storage, against plain ``imaplib`` fetching the same attachments to nowhere.

Both from the same mail server (pymap), in the same run. Ours is the step `fetch`: pieces decoded, digested, stored and
committed one message at a time; the baseline asks for the same parts in one command each and drops them. Then one large
attachment, for the memory of it.
"""

import imaplib
import re
import tempfile
import time
from pathlib import Path
from uuid import UUID

from msgspec import convert
from sqlalchemy import text

from benchmarks.measure import Report, Run, alternate
from domain.identity import new_id
from domain.pipelines import JobInStep
from domain.recordings.mailboxes import MailboxOrder
from stack.imap import HOST, MailServer, serving
from stack.up import running
from storage.database import autocommit, transaction
from storage.recordings import mailboxes, polling
from tests.mailbox_corpus import big
from tests.own_settings import settings_of
from workers.recordings.fetch import fetch
from workers.recordings.poll import poll

KIB, MIB = 1024, 1024**2


class _Watched:
    """The engine's context, as far as a step alone needs it; looks at the memory at every checkpoint, if it is to."""

    def __init__(self, looks: bool) -> None:
        self.looks, self.peak = looks, 0

    def progress(self, done: float, total: float, message: str | None = None) -> None:
        self.checkpoint()

    def checkpoint(self) -> None:
        if self.looks:
            self.peak = max(self.peak, resident())


def resident() -> int:
    """Bytes of this process; Linux only."""
    found = re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * KIB if found else 0


def main(pairs: int = 5, letters: int = 80, size: int = 300 * KIB, large: int = 100 * MIB) -> list[Report]:
    """Measure; about two minutes."""
    with (
        tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder,
        serving(Path(folder) / "imap.log") as mail,
    ):
        with mail.client() as client:
            client.create_folder("large")
            for seed in range(letters):
                client.append("INBOX", next(big(seed, size)).raw)
            client.append("large", next(big(letters, large)).raw)
        with running(only=(), env=mail.settings()) as stack, settings_of({**stack.env, **mail.settings()}):
            owner = _account()
            report = Report("fetching", "MB/s", "0.8 or more", "higher")
            report.pairs = alternate(
                pairs, lambda: _ours(owner, mail, "INBOX")[0], lambda: _theirs(mail, "INBOX", letters)
            )
            idle = resident()
            run, peak = _ours(owner, mail, "large", looks=True)
            report.extra = {
                "letters": letters,
                "bytes_each": size,
                "large_mib": large // MIB,
                "large_mb_per_s": round(run.value, 1),
                "large_memory_mib_above_idle": round((peak - idle) / MIB, 1),
            }
            report.show()
    return [report]


def _account() -> UUID:
    owner = new_id()
    with autocommit() as connection:
        connection.execute(
            text("INSERT INTO accounts (id, username, password_hash) VALUES (:id, :name, 'x')"),
            {"id": owner, "name": f"u{owner}"},
        )
    return owner


def _ours(owner: UUID, mail: MailServer, folder: str, *, looks: bool = False) -> tuple[Run, int]:
    """(the run, the most memory this process had at a checkpoint)."""
    order = convert({**mail.order(), "folder": folder}, MailboxOrder)
    with transaction() as connection:
        for table in ("recordings", "mailboxes"):
            connection.execute(text(f"DELETE FROM {table}"))
        mailbox = mailboxes.create(connection, owner, order)
        ((ordered,), _) = polling.order_asked(connection, owner, mailbox.id, None)
    job = JobInStep(
        id=ordered.event.job_id,
        owner_id=owner,
        kind="recordings",
        step="poll",
        attempt=1,
        params={"mailbox_id": str(mailbox.id)},
    )
    watched = _Watched(looks)
    cpu, began = time.process_time(), time.perf_counter()
    outcome = poll(job, watched)
    with transaction() as connection:
        for effect in getattr(outcome, "effects", ()):
            effect(connection)
    fetch(job, watched)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    with autocommit() as connection:
        stored = int(connection.execute(text("SELECT sum(size) FROM recordings")).scalar_one())
    return Run(value=stored / 1e6 / seconds, cpu_seconds=cpu, units=stored / 1e6), watched.peak


def _theirs(mail: MailServer, folder: str, letters: int) -> Run:
    cpu, began, size = time.process_time(), time.perf_counter(), 0
    with imaplib.IMAP4(HOST, mail.port) as client:
        client.login(mail.username, mail.password)
        client.select(folder, readonly=True)
        uids = client.uid("SEARCH", "ALL")[1][0].split()
        for uid in uids:
            answer = client.uid("FETCH", uid.decode(), "(BODY.PEEK[2])")[1]
            size += len(answer[0][1])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert len(uids) == letters
    decoded = size * 3 / 4 * 76 / 77  # base64 in lines of 76 letters
    return Run(value=decoded / 1e6 / seconds, cpu_seconds=cpu, units=decoded / 1e6)


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    main(parser.parse_args().pairs)

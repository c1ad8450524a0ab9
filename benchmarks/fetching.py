"""Fetching recordings into the storage, against plain ``imaplib`` fetching the same attachments to nowhere.

Both from the same mail server, in the same run: Dovecot where it is installed, and pymap, which is written in Python
and shares the processor with us. Ours is the steps `poll` and `fetch`: descriptions read and judged, parts decoded,
digested, stored and committed one message at a time. The baseline asks for the same descriptions and then for each part
in a command of its own, and drops what comes. A second pair of figures is of `fetch` alone, against the parts alone.
Then one large attachment, for the memory of it.
"""

import imaplib
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import psutil
from msgspec import convert
from sqlalchemy import text

from benchmarks.measure import Pair, Report, Run, alternate
from domain.pipelines import JobInStep
from domain.recordings.mailboxes import MailboxOrder
from stack.imap import HOST, MailServer, serving
from stack.up import running
from storage.database import autocommit, transaction
from storage.recordings import mailboxes, polling
from tests import dovecot
from tests.job_rows import account
from tests.mailbox_corpus import big
from tests.own_settings import settings_of
from workers.recordings.fetch import fetch
from workers.recordings.poll import poll

KIB, MIB = 1024, 1024**2
DESCRIBED = 50  # messages in a command, as ours
# Dovecot's processes end with their connections, before they could be asked
SERVERS = {"pymap": "pymap", "postgres": "postgres", "rclone": "storage"}


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
    """Measure; about two minutes for each server."""
    reports = []
    for name in ("pymap", *(["dovecot"] if dovecot.BINARY else [])):
        with _mail(name) as mail:
            with mail.client() as client:
                client.create_folder("large")
                for seed in range(letters):
                    client.append("INBOX", next(big(seed, size)).raw)
                client.append("large", next(big(letters, large)).raw)
            with running(only=(), env=mail.settings()) as stack, settings_of({**stack.env, **mail.settings()}):
                reports += _measure(name, mail, pairs, letters, size, large)
    return reports


@contextmanager
def _mail(name: str) -> Iterator[MailServer]:
    with ExitStack() as stack:
        if name == "dovecot":
            yield stack.enter_context(dovecot.serving())
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-benchmark-"))
            yield stack.enter_context(serving(Path(folder) / "imap.log"))


def _measure(name: str, mail: MailServer, pairs: int, letters: int, size: int, large: int) -> list[Report]:
    owner = account()
    report = Report(f"fetching-{name}", "MB/s", "0.8 or more", "higher")
    alone: list[Pair] = []
    spent: list[dict[str, float]] = []

    def ours() -> Run:
        before = _by_process()
        whole, part, _ = _ours(owner, mail, "INBOX")
        spent.append({one: cpu - before.get(one, 0) for one, cpu in _by_process().items()})
        alone.append(Pair(part, _theirs(mail, letters, described=False)))
        return whole

    report.pairs = alternate(pairs, ours, lambda: _theirs(mail, letters, described=True))
    report.extra = {
        "letters": letters,
        "bytes_each": size,
        **_said("fetch_alone", alone[1:]),
        "cpu_ms_per_mb_by_process": {
            one: round(1000 * statistics.median(run.get(one, 0) for run in spent[1:]) / report.pairs[0].ours.units, 2)
            for one in sorted(set(SERVERS.values()))
        },
    }
    idle = resident()
    run, _, peak = _ours(owner, mail, "large", looks=True)
    report.extra |= {
        "large_mib": large // MIB,
        "large_mb_per_s": round(run.value, 1),
        "large_memory_mib_above_idle": round((peak - idle) / MIB, 1),
    }
    report.show()
    return [report]


def _said(name: str, pairs: list[Pair]) -> dict[str, float]:
    def median(of: Callable[[Pair], float]) -> float:
        return round(statistics.median(map(of, pairs)), 2)

    return {
        f"{name}_ratio": median(lambda pair: pair.ratio),
        f"{name}_mb_per_s": median(lambda pair: pair.ours.value),
        f"{name}_baseline_mb_per_s": median(lambda pair: pair.baseline.value),
    }


def _by_process() -> dict[str, float]:
    """CPU seconds so far, of the servers that this process has started."""
    spent: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        if (name := next((name for word, name in SERVERS.items() if word in command), None)) is not None:
            spent[name] = spent.get(name, 0) + times.user + times.system
    return spent


def _ours(owner: UUID, mail: MailServer, folder: str, *, looks: bool = False) -> tuple[Run, Run, int]:
    """(both steps, `fetch` alone, the most memory this process had at a checkpoint)."""
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
    cpu_between, between = time.process_time(), time.perf_counter()
    fetch(job, watched)
    cpu_end, end = time.process_time(), time.perf_counter()
    with autocommit() as connection:
        stored = int(connection.execute(text("SELECT sum(size) FROM recordings")).scalar_one()) / 1e6
    whole = Run(value=stored / (end - began), cpu_seconds=cpu_end - cpu, units=stored)
    return whole, Run(value=stored / (end - between), cpu_seconds=cpu_end - cpu_between, units=stored), watched.peak


def _theirs(mail: MailServer, letters: int, described: bool) -> Run:
    cpu, began, size = time.process_time(), time.perf_counter(), 0
    with imaplib.IMAP4(HOST, mail.port) as client:
        client.login(mail.username, mail.password)
        client.select("INBOX", readonly=True)
        uids = [uid.decode() for uid in client.uid("SEARCH", "ALL")[1][0].split()]
        if described:
            for at in range(0, len(uids), DESCRIBED):
                some = ",".join(uids[at : at + DESCRIBED])
                client.uid("FETCH", some, "(ENVELOPE BODYSTRUCTURE RFC822.SIZE INTERNALDATE)")
        for uid in uids:
            answer = client.uid("FETCH", uid, "(BODY.PEEK[2])")[1]
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

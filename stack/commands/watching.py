"""Following jobs until their end, several at once, and what that comes to for the shell."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NoReturn, TypeVar
from uuid import UUID

import click
import msgspec
from rich.console import Console

from domain.jobs import Event, Job, Status
from millrace.errors import NotFound
from stack.commands.exits import CANCELLED, DONE, FAILED, INTERRUPTED, end, say
from stack.terminal.bars import Lines, show, view
from stack.terminal.text import harmless, worded
from stack.terminal.words import word

if TYPE_CHECKING:
    from millrace.client import Client

T = TypeVar("T")
STREAMS = 8  # open at once; one account may have a hundred in all


def watch(client: "Client", jobs: Sequence[Job], console: Console | None, ended: dict[UUID, Job] | None = None) -> int:
    """Show what happens (None: each event as a line of JSON on stdout) until every job has ended; the exit code.

    Each is put into ``ended`` once it is over.
    """
    ended = {} if ended is None else ended
    try:
        if console is None:
            _follow(client, jobs, lambda event: click.echo(msgspec.json.encode(event)), ended)
        else:
            names = {job.id: job.title for job in jobs}
            with view(console, several=len(jobs) > 1) as shown:
                for job in jobs if len(jobs) > 1 else ():  # not each has a stream at once
                    shown.show(job.id, job.title, job.status, job.progress)

                _follow(client, jobs, lambda event: show(shown, names[event.job_id], event), ended)
    except KeyboardInterrupt:
        left = " ".join(str(job.id) for job in jobs if job.id not in ended)
        # not hidden by the bar's last line
        click.echo(err=True)
        goes_on = worded("goes on; to go on watching:", "продолжается; смотреть дальше:")
        end(INTERRUPTED, f"{goes_on} millrace watch {left}")
    return max((_outcome(job) for job in ended.values()), default=DONE)


def watch_all(client: "Client", console: Console | None) -> NoReturn:
    """Show what happens to all jobs from now on, a line for each stage (None: each event as JSON), until Ctrl-C."""
    names: dict[UUID, str] = {}
    heard: SimpleQueue[Event | Exception] = SimpleQueue()

    def read() -> None:
        try:
            for event in client.all_events():
                if console is not None and event.job_id not in names:
                    names[event.job_id] = _title(client, event.job_id)
                heard.put(event)
        except Exception as error:
            heard.put(error)

    threading.Thread(target=read, daemon=True).start()
    shown = None if console is None else Lines(console, several=True)
    while True:
        match _next(heard):
            case Event() as event:
                if shown is None:
                    click.echo(msgspec.json.encode(event))
                    continue
                show(shown, names[event.job_id], event)
            case error:
                raise error


def _title(client: "Client", job_id: UUID) -> str:
    try:
        return client.job(job_id).title
    except NotFound:  # deleted meanwhile
        return str(job_id)


def _outcome(job: Job) -> int:
    if job.status is Status.FAILED and job.error is not None:
        error = job.error
        where = worded(f"failed in {error.stage}", f"ошибка на шаге «{word(error.stage or '')}»")
        say(f"{job.id} {where}: {error.code}: {harmless(error.message)}")
        return FAILED
    if job.status is Status.CANCELLED:
        say(f"{job.id} " + worded("was cancelled", "отменена"))
        return CANCELLED
    return DONE


def _follow(client: "Client", jobs: Sequence[Job], heed: Callable[[Event], None], ended: dict[UUID, Job]) -> None:
    """Read the streams in threads, show in this one; a job is in ``ended`` once it is over."""
    heard: SimpleQueue[Event | Job | Exception] = SimpleQueue()
    waiting = deque(jobs)

    def read() -> None:
        try:
            while waiting:
                job = waiting.popleft()
                for event in client.events(job):
                    heard.put(event)
                heard.put(client.job(job))
        except Exception as error:
            heard.put(error)

    for _ in range(min(STREAMS, len(jobs))):
        # daemon: Ctrl-C must not wait for a stream that says nothing
        threading.Thread(target=read, daemon=True).start()
    while len(ended) < len(jobs):
        match _next(heard):
            case Event() as event:
                heed(event)
            case Job() as job:
                ended[job.id] = job
            case error:
                raise error


def _next(heard: "SimpleQueue[T]") -> T:
    while True:
        # a Ctrl-C that comes right before a wait is only noticed after it
        with suppress(Empty):
            return heard.get(timeout=0.5)

"""``millrace upload``, ``watch``, ``jobs``, ``cancel``, ``retry``, ``delete`` and ``download``."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import click

from stack.commands.exits import DONE, INTERRUPTED, end, say, written
from stack.commands.server import job_argument, jobs_argument, json_option, on_server
from stack.terminal.text import harmless, worded
from stack.terminal.words import word

if TYPE_CHECKING:
    from millrace.client import Client, Job

# not from `domain`: whoever asks for --help waits for no import
STATES = ["pending", "queued", "processing", "succeeded", "failed", "cancelled"]
_watch_option = click.option("--watch", "watched", is_flag=True, help="Show what happens until every job has ended.")


@on_server()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--title", help="Of the job; else the file's name.")
@click.option("--profile", help="One of the installation's; how the ML service is to work.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="From 0 to 1: above it, something counts as flagged.")
@click.option("--priority", type=click.Choice(["low", "normal", "high"]), help="Among your own waiting jobs.")
@click.option("--deep", is_flag=True, help="Compare every header within an archive with its directory.")
@click.option("--idempotency-key", help="Of one upload: sent again with the same key, it makes no second job.")
@_watch_option
@json_option
def upload(
    client: "Client",
    files: tuple[Path, ...],
    title: str | None,
    profile: str | None,
    threshold: float | None,
    priority: str | None,
    deep: bool,
    idempotency_key: str | None,
    watched: bool,
    as_json: bool,
) -> None:
    """Order a job on each FILE. Prints the ids of the jobs (with --json: the jobs, a line for each) on stdout, progress
    on stderr."""
    from rich.console import Console

    from millrace.errors import InFlight, Unavailable, Unreachable
    from stack.commands.watching import watch
    from stack.terminal.bars import view

    if idempotency_key and len(files) > 1:
        raise click.UsageError("--idempotency-key is for one file")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    ordered: list[Job] = []
    ended: dict[UUID, Job] = {}
    with _printed_at_the_end(ordered, ended, wanted=watched and as_json):
        for file in files:
            key = idempotency_key or str(uuid4())
            try:
                with view(console, several=True) as shown:

                    def sent(so_far: int, size: int, name: str = file.name) -> None:
                        shown.show(name, name, "upload", 100 * so_far / size if size else 100, f"{size:,} B")

                    job = client.upload(
                        file,
                        title=title,
                        profile=profile,
                        threshold=threshold,
                        priority=priority,
                        inspection="deep" if deep else None,
                        idempotency_key=key,
                        progress=sent,
                    )
            except KeyboardInterrupt:
                end(INTERRUPTED, worded("the upload was broken off: ", "загрузка прервана: ") + _again(file, key))
            except (Unreachable, Unavailable, InFlight):
                say(worded("try again with: ", "повторить: ") + _again(file, key))
                raise
            ordered.append(job)
            if not (watched and as_json):
                _print(job, as_json)
        code = watch(client, ordered, console, ended) if watched else DONE
    raise SystemExit(code)


@on_server()
@jobs_argument()
@json_option
def watch(client: "Client", jobs: tuple[UUID, ...], as_json: bool) -> None:
    """Show what happens to each JOB, from its beginning, until all have ended; with --json each event as a line.
    Without a JOB: what happens to all of yours from now on, until Ctrl-C.

    A server that is started again meanwhile is waited for, and no event is lost or repeated. Ctrl-C ends the watching;
    the jobs go on.
    """
    from rich.console import Console

    from stack.commands.watching import watch as follow
    from stack.commands.watching import watch_all

    console = None if as_json else Console(highlight=False, soft_wrap=True)
    if not jobs:
        watch_all(client, console)
    raise SystemExit(follow(client, [client.job(job) for job in dict.fromkeys(jobs)], console))


@on_server()
@click.option("--status", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--kind", help="Only jobs of this kind.")
@click.option("--text", help="Part of title or description.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@json_option
def jobs(client: "Client", status: str | None, kind: str | None, text: str | None, limit: int, as_json: bool) -> None:
    """List your jobs, newest first: a table in a terminal, else tab-separated lines, with --json an array."""
    import msgspec
    from rich.console import Console

    from stack.terminal.tables import show_jobs

    found = list(islice(client.jobs(status=status, kind=kind, text=text), limit))
    console = Console(highlight=False)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif console.is_terminal:
        show_jobs(console, found)
    else:
        for job in found:
            line = (str(job.id), job.status, str(job.progress), job.created_at.isoformat(), harmless(job.title))
            click.echo("\t".join(line))


@on_server()
@job_argument
@json_option
def cancel(client: "Client", job: UUID, as_json: bool) -> None:
    """End JOB. One that is at work leaves within about a second; watch it to see it go."""
    asked = client.cancel(job)
    if as_json:
        _print(asked, as_json)
    else:
        say(worded("asked to end; it is ", "отмена запрошена; состояние: ") + word(asked.status))


@on_server()
@job_argument
@_watch_option
@json_option
def retry(client: "Client", job: UUID, watched: bool, as_json: bool) -> None:
    """Run an ended JOB again: a new job on the same file, whose id is printed on stdout."""
    from rich.console import Console

    from stack.commands.watching import watch as follow

    again = client.retry(job)
    if not (watched and as_json):
        _print(again, as_json)
    if watched:
        ended: dict[UUID, Job] = {}
        with _printed_at_the_end([again], ended, wanted=as_json):
            code = follow(client, [again], Console(stderr=True, highlight=False, soft_wrap=True), ended)
        raise SystemExit(code)


@on_server()
@jobs_argument(required=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def delete(client: "Client", jobs: tuple[UUID, ...], yes: bool) -> None:
    """Delete each JOB with its results and the file that came with it. One at work is cancelled first."""
    for job in dict.fromkeys(jobs):
        title = harmless(client.job(job).title)
        if not yes and sys.stdin.isatty():
            click.confirm(worded(f"Delete “{title}”?", f"Удалить «{title}»?"), abort=True, err=True)
        client.delete(job)
        say(worded("deleted: ", "удалено: ") + f"{job} {title}")


@on_server()
@job_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file or a folder; else here, by its name.")
def download(client: "Client", job: UUID, output: Path | None) -> None:
    """Save the file JOB works on. Nothing that is there already is replaced unless --output names it."""
    found = client.job(job)
    if found.file is None:
        raise click.UsageError(worded("the job has no file", "у задачи нет файла"))
    name = _plain(found.file.name, job)
    path = output / name if output and output.is_dir() else output or Path(name)
    if path != output and path.exists():
        said = worded(f"{path} is there already; --output names another", f"{path} уже есть; другое имя: --output")
        raise click.UsageError(said)
    with written(path):
        client.download_file(job, path)
    say(worded("saved as ", "сохранено: ") + harmless(str(path)))


def _plain(name: str, job: UUID) -> str:
    """The name alone: a sender's is not to choose the folder, nor to hide the file."""
    plain = harmless(name.replace("\\", "/").rpartition("/")[2]).lstrip(".").strip()
    return plain or str(job)


@contextmanager
def _printed_at_the_end(jobs: "Sequence[Job]", ended: "dict[UUID, Job]", *, wanted: bool) -> Iterator[None]:
    """However it ends: a script that was broken off has to know what it has ordered."""
    try:
        yield
    finally:
        for job in jobs if wanted else ():
            _print(ended.get(job.id, job), as_json=True)


def _again(file: Path, key: str) -> str:
    import shlex

    return f"millrace upload --idempotency-key {key} {shlex.quote(str(file))}"


def _print(job: "Job", as_json: bool) -> None:
    import msgspec

    click.echo(msgspec.json.encode(job) if as_json else str(job.id))

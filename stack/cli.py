"""The command ``millrace``. Heavy imports wait until a command needs them, so that ``--help`` answers at once."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stack import StackCancelled, StackFailed
from stack.commands import account, completion, jobs, results
from stack.commands.exits import EPILOG

if TYPE_CHECKING:
    from stack.up import Stack

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".millrace"),
    envvar="MILLRACE_DATA_DIR",
    show_default=True,
    help="Where data, secrets and logs are kept.",
)


@click.group(epilog=EPILOG)
@click.version_option(package_name="millrace")
def main() -> None:
    """A Millrace on this machine without Docker, root or servers of your own (up, demo, env, migrate), and jobs on any
    Millrace (login, upload, watch, results, ...)."""


for command in (
    account.login,
    account.logout,
    account.whoami,
    jobs.upload,
    jobs.watch,
    jobs.jobs,
    jobs.cancel,
    jobs.retry,
    jobs.delete,
    jobs.download,
    results.results,
    completion.completion,
):
    main.add_command(command)


@main.command()
@data_dir_option
@click.option("--port", type=int, envvar="PORT", help="Of the API; 8000, or another free one.")
@click.option("--flower-port", type=int, envvar="FLOWER_PORT", help="Of Flower; 5555, or another free one.")
@click.option("--ml-port", type=int, envvar="ML_PORT", help="Of the reference ML service; a free one.")
@click.option("--no-flower", is_flag=True, help="Start without Flower.")
@click.option("--only", help="Names of the Procfile to start, separated by commas.")
@click.option("--servers-only", is_flag=True, help="Start PostgreSQL, Redis and S3 only.")
@click.option("--procfile", type=click.Path(dir_okay=False, path_type=Path), help="Another list of processes.")
@click.option("--no-migrate", is_flag=True, help="Leave the database's schema as it is.")
@click.option("--verbose", is_flag=True, help="Show what the processes log.")
def up(
    data_dir: Path,
    port: int | None,
    flower_port: int | None,
    ml_port: int | None,
    no_flower: bool,
    only: str | None,
    servers_only: bool,
    procfile: Path | None,
    no_migrate: bool,
    verbose: bool,
) -> None:
    """Start everything and keep it running until Ctrl-C.

    DATABASE_URL, REDIS_URL, S3_ENDPOINT_URL and ML_SERVICE_URL each name a real server to use instead of the embedded
    one; POSTGRES_PORT, REDIS_PORT and S3_PORT give the embedded ones a fixed port.
    """
    from stack.network import free_port
    from stack.up import ROOT, Options, started

    port = port or free_port(8000)
    flower_port = flower_port or free_port(5555, taken=frozenset({port}))
    options = Options(
        port=port,
        flower_port=flower_port,
        ml_port=ml_port or free_port(5556, taken=frozenset({port, flower_port})),
        only=None if only is None else [name.strip() for name in only.split(",") if name.strip()],
        without=("flower",) if no_flower else (),
        servers_only=servers_only,
        migrate=not no_migrate,
        procfile=procfile or ROOT / "Procfile",
        verbose=verbose,
    )
    with (
        _interruptible() as cancel,
        _one_line(),
        started(data_dir, options, dict(os.environ), _say, cancel) as stack,
    ):
        _print_addresses(stack)
        cancel.wait()
        _say("stopping")


@main.command()
@data_dir_option
def env(data_dir: Path) -> None:
    """Print the running stack's settings for a shell: eval "$(millrace env)"."""
    from stack.environment import read_stack_env

    with _one_line():
        for name, value in read_stack_env(data_dir).items():
            click.echo(f"export {name}={shlex.quote(value)}")


@main.command()
@data_dir_option
def migrate(data_dir: Path) -> None:
    """Bring the database of DATABASE_URL, or of the running stack, to the newest schema."""
    from stack.environment import read_stack_env
    from stack.up import ROOT

    with _one_line():
        settings = {} if os.environ.get("DATABASE_URL") else read_stack_env(data_dir)
        command = [sys.executable, "-m", "migrations"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False)
    raise SystemExit(done.returncode)


@main.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def demo(file: Path | None) -> None:
    """Show one archive's way through the whole stack: FILE, or a sample."""
    from stack.demo import main as show

    with _one_line():
        show(file)


def _print_addresses(stack: "Stack") -> None:
    lines = []
    if "api" in stack.processes:
        lines += [f"ready {stack.url}", f"  console            {stack.url}/", f"  API documentation  {stack.url}/docs"]
    else:
        lines.append("ready")
    if "flower" in stack.processes:
        flower, user = f"http://127.0.0.1:{stack.env['FLOWER_PORT']}", stack.env["FLOWER_BASIC_AUTH"]
        user, _, password = user.partition(":")
        lines.append(f"  Flower             {flower}  (user {user}, password {password})")
    if "postgres" in stack.processes:
        lines.append(f"  PostgreSQL         {_without_password(stack.env['DATABASE_URL'])}")
    if "redis" in stack.processes:
        lines.append(f"  Redis              {_without_password(stack.env['REDIS_URL'])}")
    if "s3" in stack.processes:
        lines.append(f"  S3                 {stack.env['S3_ENDPOINT_URL']}")
    lines.append(f"  data and logs      {stack.data_dir}  (Ctrl-C stops everything)")
    click.echo("\n".join(lines))


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    credentials, _, address = rest.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}@{address}" if user else f"{scheme}://{address}"


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone; what is being stopped has to be stopped all the same
        click.echo(f"millrace: {line}", err=True)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set. Not an exception: it could break a stop half-way."""
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _one_line() -> Iterator[None]:
    """Failures as one line after the end of the log they are in, and exit code 1."""
    try:
        yield
    except StackFailed as error:
        if error.tail:
            click.echo(error.tail, err=True)
        _say(str(error))
        raise SystemExit(1) from None
    except StackCancelled:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

"""``millrace demo``: one archive's whole way, and a recording's, live in the terminal, through a real stack."""

import contextlib
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
from rich.console import Console
from rich.markup import escape

from millrace.client import Client, Job
from millrace.errors import ClientError, Refused
from stack import StackFailed, recordings
from stack.environment import read_stack_env
from stack.samples import make_archive
from stack.terminal.bars import Bars, show
from stack.terminal.tables import show_results
from stack.up import running

DATA_DIR = Path(".millrace")

console = Console(highlight=False, soft_wrap=True)


def main(file: Path | None = None) -> None:
    """Show the way of ``file``, or of a sample archive; starts a stack for it unless one is running here.

    Raises:
        StackFailed: something does not start, or the job does not succeed.
    """
    began = time.perf_counter()
    with recordings.world() as world, _stack(world) as (url, flower, ours):
        console.print(f"[dim]stack ready after {time.perf_counter() - began:.1f} s[/]")
        with _one_error(), Client(url) as client:
            _sign_in(client)
            job = _watch(client, _upload(client, file))
            if error := job.error:
                raise StackFailed(f"the job failed in {error.stage} with {error.code}: {error.message}")
            show_results(console, job, client.result_page(job))
        if ours:  # a stack that runs already knows nothing of the demo's mail server
            recordings.show(console, url, world)
        _show_addresses(url, flower, job.id)
        console.print("[dim]stopping everything this demo started[/]")
    console.print(f"[dim]done after {time.perf_counter() - began:.1f} s[/]")


@contextlib.contextmanager
def _stack(world: recordings.World) -> Iterator[tuple[str, str, bool]]:
    """(address of the API, address of Flower, whether it was started for the demo) of the stack in .millrace."""
    with contextlib.suppress(StackFailed):
        env = read_stack_env(DATA_DIR)
        if httpx.get(f"{env['PUBLIC_URL']}/health/ready", trust_env=False).status_code == 200:
            console.print(f"using the stack that is running at {env['PUBLIC_URL']}")
            yield env["PUBLIC_URL"], f"http://127.0.0.1:{env.get('FLOWER_PORT', '')}", False
            return
    console.print("starting PostgreSQL, Redis, S3, the API, workers, beat, Flower and the ML service …")
    with running(DATA_DIR, env=world.settings()) as stack:
        yield stack.url, f"http://127.0.0.1:{stack.env['FLOWER_PORT']}", True


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise StackFailed(f"the server refused: {error.code}: {error.detail}") from None
    except ClientError as error:
        raise StackFailed(str(error)) from None


def _sign_in(client: Client) -> None:
    username, password = f"demo-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
    client.register(username, password)
    client.login(username, password)
    console.print(f"registered and signed in as [bold]{username}[/]")


def _upload(client: Client, file: Path | None) -> Job:
    with tempfile.TemporaryDirectory() as folder:
        if file is None:
            file = Path(folder) / "sample.zip"
            file.write_bytes(make_archive())
        job = client.upload(file)
    size = job.file.size if job.file else 0
    console.print(f"uploaded [bold]{escape(file.name)}[/] ({size:,} bytes), job {job.id}")
    return job


def _watch(client: Client, job: Job) -> Job:
    """Draw the job's stages and percentages from its event stream until the terminal event."""
    with Bars(console) as bars:
        for event in client.events(job):
            show(bars, job.title, event)
    return client.job(job)


def _show_addresses(url: str, flower: str, job_id: UUID) -> None:
    console.print("\nwhere everything can be opened while it runs (`make up` keeps it running):")
    console.print(f"  console            {url}/")
    console.print(f"  API documentation  {url}/docs")
    console.print(f"  this job           {url}/api/v1/jobs/{job_id}")
    console.print(f"  its results        {url}/api/v1/jobs/{job_id}/results.xlsx")
    console.print(f"  metrics            {url}/metrics")
    console.print(f"  Flower             {flower}\n")

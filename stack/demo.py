"""``millrace demo``: one archive's whole way, live in the terminal, through a real stack."""

import contextlib
import json
import mimetypes
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stack import StackFailed
from stack.environment import read_stack_env
from stack.samples import make_archive
from stack.up import running

DATA_DIR = Path(".millrace")
ROWS_SHOWN = 20
FINAL = ("succeeded", "failed", "cancelled")

console = Console(highlight=False, soft_wrap=True)


def main(file: Path | None = None) -> None:
    """Show the way of ``file``, or of a sample archive; starts a stack for it unless one is running here.

    Raises:
        StackFailed: something does not start, or the job does not succeed.
    """
    began = time.perf_counter()
    with _stack() as (url, flower):
        console.print(f"[dim]stack ready after {time.perf_counter() - began:.1f} s[/]")
        with httpx.Client(base_url=f"{url}/api/v1", timeout=60, trust_env=False) as client:
            _sign_in(client)
            job = _upload(client, file)
            _watch(client, job["id"])
            job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
            if job["status"] == "failed":
                error = job["error"]
                raise StackFailed(f"the job failed in {error['stage']} with {error['code']}: {error['message']}")
            _show_results(client, job)
        _show_addresses(url, flower, job["id"])
        console.print("[dim]stopping everything this demo started[/]")
    console.print(f"[dim]done after {time.perf_counter() - began:.1f} s[/]")


@contextlib.contextmanager
def _stack() -> Iterator[tuple[str, str]]:
    """(address of the API, address of Flower) of the stack running in .millrace, or of one started for the demo."""
    with contextlib.suppress(StackFailed):
        env = read_stack_env(DATA_DIR)
        if httpx.get(f"{env['PUBLIC_URL']}/health/ready", trust_env=False).status_code == 200:
            console.print(f"using the stack that is running at {env['PUBLIC_URL']}")
            yield env["PUBLIC_URL"], f"http://127.0.0.1:{env.get('FLOWER_PORT', '')}"
            return
    console.print("starting PostgreSQL, Redis, S3, the API, workers, beat, Flower and the ML service …")
    with running(DATA_DIR) as stack:
        yield stack.url, f"http://127.0.0.1:{stack.env['FLOWER_PORT']}"


def _sign_in(client: httpx.Client) -> None:
    account = {"username": f"demo-{secrets.token_hex(4)}", "password": secrets.token_urlsafe(16)}
    client.post("/auth/register", json=account).raise_for_status()
    token = client.post("/auth/login", json=account).raise_for_status().json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    console.print(f"registered and signed in as [bold]{account['username']}[/]")


def _upload(client: httpx.Client, file: Path | None) -> dict[str, Any]:
    if file is None:
        name, content = "sample.zip", make_archive()
        answer = client.post("/jobs", files={"file": (name, content, "application/zip")})
    else:
        name = file.name
        with file.open("rb") as content_of_file:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            answer = client.post("/jobs", files={"file": (name, content_of_file, kind)}, timeout=None)
    if answer.is_error:
        problem = answer.json()
        raise StackFailed(f"the upload was refused: {problem['code']}: {problem['detail']}")
    job: dict[str, Any] = answer.json()
    console.print(f"uploaded [bold]{name}[/] ({job['file']['size']:,} bytes), job {job['id']}")
    return job


def _watch(client: httpx.Client, job_id: str) -> None:
    """Draw the job's stages and percentages from its event stream until the terminal event."""
    columns = (
        TextColumn("{task.fields[stage]:<10}"),
        BarColumn(bar_width=40),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("job", total=100, stage="queued", message="")
        last, stage = "", ""
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            with (
                contextlib.suppress(httpx.TransportError),
                connect_sse(client, "GET", f"/jobs/{job_id}/events", headers=headers) as source,
            ):
                for sse in source.iter_sse():
                    if not sse.data:
                        continue  # only sets the time to reconnect in
                    last = sse.id or last
                    data = json.loads(sse.data)["data"]
                    if data.get("stage", sse.event) != stage:
                        stage = data.get("stage", sse.event)
                        progress.console.print(f"  [dim]{data['progress']:>3} %[/] {stage}")
                    progress.update(bar, completed=data["progress"], stage=stage, message=data.get("message", ""))
                    if sse.event in FINAL:
                        progress.update(bar, stage=sse.event)
                        return
            time.sleep(0.5)  # the stream broke off: come back with the last id, as a browser's EventSource does


def _show_results(client: httpx.Client, job: dict[str, Any]) -> None:
    page = client.get(f"/jobs/{job['id']}/results", params={"limit": 1000}).raise_for_status().json()
    shown = [name for name in ("path", "detected_type", "score", "expected_type", "flagged") if name in page["columns"]]
    table = Table(*(shown or page["columns"][:6]), title=f"{job['title']}: {job['message']}", title_justify="left")
    rows = sorted(page["rows"], key=lambda row: not row.get("flagged"))
    for row in rows[:ROWS_SHOWN]:
        cells = [_cell(row.get(name)) for name in (shown or page["columns"][:6])]
        table.add_row(*cells, style="bold red" if row.get("flagged") else None)
    console.print(table)
    if len(rows) > ROWS_SHOWN:
        console.print(f"[dim]… and {len(rows) - ROWS_SHOWN} more[/]")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _show_addresses(url: str, flower: str, job_id: str) -> None:
    console.print("\nwhere everything can be opened while it runs (`make up` keeps it running):")
    console.print(f"  console            {url}/")
    console.print(f"  API documentation  {url}/docs")
    console.print(f"  this job           {url}/api/v1/jobs/{job_id}")
    console.print(f"  its results        {url}/api/v1/jobs/{job_id}/results.xlsx")
    console.print(f"  metrics            {url}/metrics")
    console.print(f"  Flower             {flower}\n")

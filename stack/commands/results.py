"""``millrace results``: a table to look at, or CSV, JSON and XLSX to go on with."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

import click

from stack.commands.exits import say, written
from stack.commands.server import job_argument, on_server
from stack.terminal.text import worded

if TYPE_CHECKING:
    from millrace.client import Client


@on_server()
@job_argument
@click.option("--csv", "as_csv", is_flag=True, help="With a header; unknown columns at the end.")
@click.option("--json", "as_json", is_flag=True, help="One document: columns, summary, warnings, rows.")
@click.option("--xlsx", "as_xlsx", is_flag=True, help="A workbook: JOB.xlsx unless --output says where.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of stdout.")
def results(client: "Client", job: UUID, as_csv: bool, as_json: bool, as_xlsx: bool, output: Path | None) -> None:
    """Print the parsed results of JOB: without an option the first rows as a table in a terminal, else CSV."""
    from rich.console import Console

    from stack.terminal.tables import show_results

    forms = [form for form, wanted in (("csv", as_csv), ("json", as_json), ("xlsx", as_xlsx)) if wanted]
    if len(forms) > 1:
        raise click.UsageError(worded("one of --csv, --json and --xlsx", "одно из --csv, --json и --xlsx"))
    form = next(iter(forms), None)
    if form == "xlsx":
        path = output or Path(f"{job}.xlsx")
        with written(path):
            client.download_result(job, path)
        say(worded("saved as ", "сохранено: ") + str(path))
    elif form is None and output is None and sys.stdout.isatty():
        show_results(Console(highlight=False), client.job(job), client.result_page(job))
    else:
        pages = _pages(client, job)
        head = next(pages)  # before a file is opened: there may be no results
        with _opened(output) as file:
            _write_json(file, head, pages) if form == "json" else _write_csv(file, head, pages)


def _pages(client: "Client", job: UUID) -> Iterator[Any]:
    after: int | None = 0
    while after is not None:
        page = client.result_page(job, after=after)
        yield page
        after = page.next


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
    else:
        with written(path), path.open("w", encoding="utf-8", newline="") as file:
            yield file


def _write_json(file: IO[str], head: Any, pages: Iterator[Any]) -> None:
    """Row by row, so that no more than a page is held."""
    import msgspec

    def text(value: Any) -> str:
        return msgspec.json.encode(value).decode()

    known = {name: value for name, value in msgspec.structs.asdict(head).items() if name not in ("rows", "next")}
    file.write(text(known)[:-1] + ',"rows":[')
    separator = ""
    for page in _all(head, pages):
        for row in page.rows:
            file.write(separator + text(row))
            separator = ","
    file.write("]}\n")


def _all(head: Any, pages: Iterator[Any]) -> Iterator[Any]:
    yield head
    yield from pages


def _write_csv(file: IO[str], head: Any, pages: Iterator[Any]) -> None:
    """RFC 4180. The rows are held until all are seen, as the header needs every name under `extra`."""
    import csv
    import json

    def cell(value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value

    rows = [row for page in _all(head, pages) for row in page.rows]
    extra = list(dict.fromkeys(name for row in rows for name in row.get("extra") or ()))
    writer = csv.writer(file)
    writer.writerow([*head.columns, *extra])
    for row in rows:
        others = row.get("extra") or {}
        known = [cell(row.get(name)) for name in head.columns]
        writer.writerow([*known, *(cell(others.get(name)) for name in extra)])

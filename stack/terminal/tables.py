"""Results and jobs as tables."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from millrace.client import Job, ResultPage
from stack.terminal.text import harmless, worded
from stack.terminal.words import retold, word

ROWS_SHOWN = 20
COLUMNS_SHOWN = 6
_TELLING = ("path", "detected_type", "score", "expected_type", "flagged")  # of what the reference service answers
_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


def show_results(console: Console, job: Job, page: ResultPage) -> None:
    """The first rows, the flagged ones before the others."""
    columns = [name for name in _TELLING if name in page.columns] or page.columns[:COLUMNS_SHOWN]
    title = Text(f"{harmless(job.title)}: {harmless(retold(job.message or ''))}")
    table = Table(*map(harmless, columns), title=title, title_justify="left")
    rows = sorted(page.rows, key=lambda row: not row.get("flagged"))
    for row in rows[:ROWS_SHOWN]:
        cells = [Text(_cell(row.get(name))) for name in columns]
        table.add_row(*cells, style="bold red" if row.get("flagged") else None)
    console.print(table)
    if (more := page.summary["rows"] - ROWS_SHOWN) > 0:
        console.print(worded(f"… and {more} more", f"… и ещё {more}"), style="dim")


def show_jobs(console: Console, jobs: Iterable[Job]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(worded("job", "задача"), no_wrap=True, min_width=36)
    for name in (worded("status", "состояние"), "%", worded("created", "создана"), worded("title", "название")):
        table.add_column(name, overflow="fold", justify="right" if name == "%" else "left")
    for job in jobs:
        status = Text(word(job.status), style=_COLOURS.get(job.status, ""))
        when = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(str(job.id), status, str(job.progress), when, Text(harmless(job.title)))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else harmless(str(value))

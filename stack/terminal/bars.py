"""Progress of jobs and uploads: bars where there is a terminal, else a line for each stage."""

from collections.abc import Hashable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from domain.jobs import TERMINAL, Event
from stack.terminal.text import harmless, worded


class View(Protocol):
    """Shows how far something is, from one thread."""

    def show(
        self, what: Hashable, name: str, stage: str, percent: float, message: str = "", left: int | None = None
    ) -> None:
        """``left`` is in seconds, None where nobody knows."""

    def __enter__(self) -> "View": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def show(view: View, name: str, event: Event) -> None:
    """What an event says of its job, called ``name``."""
    data = event.data
    stage = event.type if event.type in TERMINAL else str(data.get("stage") or event.type)
    view.show(event.job_id, name, stage, data.get("progress") or 0, data.get("message") or "", data.get("eta_seconds"))


def in_words(seconds: int | None) -> str:
    """About how long, to two digits; nothing where it is not known."""
    if seconds is None:
        return ""
    if seconds < 100:
        time = worded(f"{seconds} s", f"{seconds} с")
    elif seconds < 100 * 60:
        time = worded(f"{round(seconds / 60)} min", f"{round(seconds / 60)} мин")
    else:
        time = worded(f"{round(seconds / 3600)} h", f"{round(seconds / 3600)} ч")
    return worded(f"{time} left", f"осталось {time}")


def view(console: Console, *, several: bool = False) -> View:
    """``several`` things at once are told apart by their names."""
    return Bars(console, several=several) if console.is_terminal else Lines(console, several=several)


class Bars:
    """A bar for each thing; of a single one, every stage it has come to stays above it."""

    def __init__(self, console: Console, *, several: bool = False) -> None:
        name = [TextColumn("{task.fields[name]:<24.24}", markup=False)] if several else []
        self._several = several
        self._progress = Progress(
            *name,
            TextColumn("{task.fields[stage]:<10}", markup=False),
            BarColumn(bar_width=20 if several else 40),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", style="cyan", markup=False),
            TextColumn("{task.fields[message]}", markup=False),
            console=console,
        )
        self._bars: dict[Hashable, TaskID] = {}
        self._stages: dict[Hashable, str] = {}

    def show(
        self, what: Hashable, name: str, stage: str, percent: float, message: str = "", left: int | None = None
    ) -> None:
        fields: dict[str, Any] = {"name": harmless(name), "stage": harmless(stage), "message": harmless(message)}
        fields["left"] = in_words(left)
        if what not in self._bars:
            self._bars[what] = self._progress.add_task("", total=100, **fields)
        if self._stages.get(what) != stage and not self._several:
            self._progress.console.print(Text.assemble((f"  {percent:>3.0f} %", "dim"), " ", fields["stage"]))
        self._stages[what] = stage
        self._progress.update(self._bars[what], completed=percent, **fields)

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class Lines:
    """A line whenever a thing comes to another stage: for logs and pipes."""

    def __init__(self, console: Console, *, several: bool = False) -> None:
        self._console, self._several = console, several
        self._stages: dict[Hashable, str] = {}

    def show(
        self, what: Hashable, name: str, stage: str, percent: float, message: str = "", left: int | None = None
    ) -> None:
        if self._stages.get(what) == stage:
            return
        self._stages[what] = stage
        parts = [f"{percent:>3.0f} %", stage, message, f"({name})" if self._several else ""]
        line = " ".join(harmless(part) for part in parts if part)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return

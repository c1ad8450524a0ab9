"""Progress of jobs and uploads: bars where there is a terminal, else a line for each stage."""

from collections.abc import Hashable, Iterable
from types import TracebackType
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from domain.jobs import TERMINAL, Event
from stack.terminal.text import harmless, worded
from stack.terminal.widths import CLOCK, PERCENT, Widths, fitted
from stack.terminal.words import retold, word


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
    said = retold(data.get("message") or "")
    view.show(event.job_id, name, stage, data.get("progress") or 0, said, data.get("eta_seconds"))


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


class _Fitted(Progress):
    """Lines that fit the terminal, however wide it is just now: rich cuts all parts alike, down to nothing."""

    def __init__(self, console: Console, bar_width: int) -> None:
        self._wide, self._clock = bar_width, TimeElapsedColumn()
        self._terminal = console  # the first table is made before there is a ``console``
        super().__init__(console=console)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        shown = [task for task in tasks if task.visible]

        def longest(field: str) -> int:
            return max((cell_len(task.fields[field]) for task in shown), default=0)

        stage, message = max(10, longest("stage")), longest("message")
        wanted = Widths(longest("name"), stage, self._wide, PERCENT, CLOCK, longest("left"), message)
        fits = fitted(self._terminal.width, wanted)
        parts = {
            "name": TextColumn("{task.fields[name]}", markup=False),
            "stage": TextColumn("{task.fields[stage]}", markup=False),
            "bar": BarColumn(bar_width=fits.bar),
            "percent": TextColumn("{task.percentage:>3.0f} %"),
            "clock": self._clock,
            "left": TextColumn("{task.fields[left]}", style="cyan", markup=False),
            "message": TextColumn("{task.fields[message]}", markup=False),
        }
        kept = {part: width for part, width in fits._asdict().items() if width}
        columns = (Column(width=width, no_wrap=True, overflow="ellipsis") for width in kept.values())
        table = Table.grid(*columns, padding=(0, 1))
        for task in shown:
            table.add_row(*(parts[part](task) for part in kept))
        return table


class Bars:
    """A bar for each thing; of a single one, every stage it has come to stays above it."""

    def __init__(self, console: Console, *, several: bool = False) -> None:
        self._several = several
        self._progress = _Fitted(console, bar_width=20 if several else 40)
        self._bars: dict[Hashable, TaskID] = {}
        self._stages: dict[Hashable, str] = {}

    def show(
        self, what: Hashable, name: str, stage: str, percent: float, message: str = "", left: int | None = None
    ) -> None:
        fields: dict[str, Any] = {"name": harmless(name) if self._several else "", "stage": harmless(word(stage))}
        fields |= {"message": harmless(message), "left": in_words(left)}
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
        parts = [f"{percent:>3.0f} %", harmless(word(stage)), message, f"({name})" if self._several else ""]
        line = " ".join(harmless(part) for part in parts if part)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return

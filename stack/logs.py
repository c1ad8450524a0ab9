"""``--verbose``: what the processes write to their logs, on the terminal, each line with its process's name."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from stack.process import Process

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_yellow", "red")
POLL_SECONDS = 0.1


class Follower:
    """Reads the logs as they grow. A pipe to us would stop a process when the terminal is slow, or gone."""

    def __init__(self, processes: Mapping[str, Process]) -> None:
        self._processes = processes
        self._done = threading.Event()
        self._read: dict[Path, int] = {}
        self._thread = threading.Thread(target=self._follow, name="follow-logs", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        for number, process in enumerate(list(self._processes.values())):
            prefix = click.style(f"{process.name:>8} | ", fg=COLOURS[number % len(COLOURS)])
            for line in self._new_lines(process.program.log):
                click.echo(prefix + line)

    def _new_lines(self, log: Path) -> Iterator[str]:
        with log.open("rb") as file:
            file.seek(self._read.get(log, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break  # the rest comes with the next look
                self._read[log] = self._read.get(log, 0) + len(line)
                yield line.decode(errors="replace").rstrip()

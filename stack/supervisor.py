"""Starts the servers and the processes of the Procfile, waits for them, and stops them all."""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack import StackCancelled, StackFailed
from stack.folder import tail
from stack.guard import Guard
from stack.process import Process, Program, Say

APP_GRACE_SECONDS, SERVER_GRACE_SECONDS, KILL_SECONDS = 9.5, 3.5, 1.0  # together below the promised 15
# Who stops taking work in goes first; the workers are last to be told.
STOP_ORDER = ("api", "beat", "flower", "ml")
DEATHS_AT_START = 3

_LINE = re.compile(r"^([A-Za-z0-9_-]+):\s*(.+)$")


def read_procfile(path: Path) -> dict[str, str]:
    """The commands of a Procfile by their names, in its order.

    Raises:
        StackFailed: it cannot be read, or a line is not ``name: command``.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise StackFailed(f"cannot read {path}: {error.strerror}") from None
    commands: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not (match := _LINE.match(line)):
            raise StackFailed(f"{path}:{number}: not `name: command`")
        commands[match[1]] = match[2]
    return commands


def shell(command: str) -> tuple[str, ...]:
    """A Procfile's command; ``exec``, so that signals reach the program and not a shell around it."""
    return ("/bin/sh", "-c", f"exec {command}")


class Supervisor:
    """All processes of one stack, by name. ``stop`` leaves none of them."""

    def __init__(self, guard: Guard, say: Say, cancel: threading.Event) -> None:
        self.processes: dict[str, Process] = {}
        self._servers: list[str] = []
        self._guard, self._say, self._cancel = guard, say, cancel

    def start(self, program: Program, *, server: bool = False) -> Process:
        """Start a program and keep it running; servers are stopped after all others."""
        process = self.processes[program.name] = Process(program, self._guard, self._say)
        if server:
            self._servers.append(program.name)
        process.start()
        return process

    def wait_ready(self, checks: Mapping[str, Callable[[], bool]], timeout: float) -> None:
        """Wait until every check (by the name of its process) has been true, and no process dies over and over.

        Raises:
            StackFailed: time is over, or a process has died three times; with the end of its log.
            StackCancelled: the operator asked to stop.
        """
        waiting = dict(checks)
        deadline = time.monotonic() + timeout
        while waiting:
            if self._cancel.is_set():
                raise StackCancelled
            for process in list(self.processes.values()):
                if process.deaths >= DEATHS_AT_START:
                    raise self._failed(process.name, f"died {process.deaths} times while starting")
            for name in [name for name, check in waiting.items() if check()]:
                del waiting[name]
            if waiting and time.monotonic() > deadline:
                raise self._failed(next(iter(waiting)), f"is not ready after {timeout:g} s")
            if waiting:
                time.sleep(0.02)

    def stop(self) -> None:
        """Ask the app's processes to end, kill those that do not, then the same with the servers."""
        apps = [process for name, process in self.processes.items() if name not in self._servers]
        apps.sort(key=lambda process: STOP_ORDER.index(process.name) if process.name in STOP_ORDER else len(STOP_ORDER))
        self._stop_all(apps, APP_GRACE_SECONDS)
        self._stop_all([self.processes[name] for name in self._servers], SERVER_GRACE_SECONDS)

    def _stop_all(self, processes: Sequence[Process], grace: float) -> None:
        for process in processes:
            process.begin_stop()
        deadline = time.monotonic() + grace
        late = [process for process in processes if not process.join(deadline - time.monotonic())]
        for process in late:
            self._say(f"{process.name} did not end within {grace:g} s and is killed")
            process.kill()
        for process in late:
            process.join(KILL_SECONDS)

    def _failed(self, name: str, what: str) -> StackFailed:
        log = self.processes[name].program.log
        return StackFailed(f"{name} {what} (log: {log})", tail(log))

"""One supervised program: in a session of its own, started again when it dies, stopped with all its children."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack.guard import Guard

FIRST_DELAY, LONGEST_DELAY, HEALTHY_SECONDS = 0.2, 5.0, 30.0

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run and how to stop it."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # holds secrets
    cwd: Path
    log: Path
    uid: int | None = None  # None: as we are
    gid: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM


class Process:
    """Keeps one program running until ``stop``; every start and death is one line for the operator.

    The signal to stop goes to the program itself (a Celery pool must not lose its children first), SIGKILL to its
    whole process group.
    """

    def __init__(self, program: Program, guard: Guard, say: Say) -> None:
        self.program = program
        self.deaths = 0
        self._guard, self._say = guard, say
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._since = 0.0  # by the monotonic clock
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The id of the process and of its group while it runs."""
        popen = self._popen
        return popen.pid if popen is not None else None

    @property
    def uptime(self) -> float:
        """Seconds since its present start; 0 while it does not run."""
        return time.monotonic() - self._since if self._popen is not None else 0.0

    def start(self) -> None:
        """Start it, and start it again whenever it ends by itself; returns once the first start was tried."""
        if self._thread is not None:
            return
        self._stopping.clear()
        started = threading.Event()
        # daemon: a program that cannot be killed must not keep the interpreter from ending
        self._thread = threading.Thread(target=self._keep, args=(started,), name=f"keep-{self.name}", daemon=True)
        self._thread.start()
        started.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself, if it runs."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._popen is not None:
                self._popen.send_signal(number)

    def begin_stop(self) -> None:
        """Ask it to stop; it is not started again. Returns at once."""
        self._stopping.set()
        self.signal(self.program.stop_signal)

    def kill(self) -> None:
        """SIGKILL to the whole process group; unless it was asked to stop before, it is then started again."""
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._popen is not None:
                os.killpg(self._popen.pid, signal.SIGKILL)

    def join(self, timeout: float) -> bool:
        """Wait for its end after ``begin_stop``; False when it still runs after ``timeout`` seconds."""
        if self._thread is None:
            return True
        self._thread.join(max(0.0, timeout))
        if self._thread.is_alive():
            return False
        self._thread = None
        return True

    def stop(self, grace: float = 5.0) -> None:
        """Stop it now: its stop signal, and SIGKILL after ``grace`` seconds. ``start`` may follow."""
        self.begin_stop()
        if not self.join(grace):
            self.kill()
            self.join(grace)

    def _keep(self, started: threading.Event) -> None:
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            begin = time.monotonic()
            popen = self._spawn()
            started.set()
            ended = self._await_end(popen) if popen is not None else "cannot be started"
            if self._stopping.is_set():
                break
            self.deaths += 1
            if time.monotonic() - begin >= HEALTHY_SECONDS:
                delay = FIRST_DELAY
            self._say(f"{self.name} {ended}; starting it again in {delay:g} s (log: {self.program.log})")
            self._stopping.wait(delay)
            delay = min(delay * 2, LONGEST_DELAY)
        started.set()

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        program = self.program
        with self._lock, program.log.open("ab") as log:
            if self._stopping.is_set():
                return None
            try:
                popen = subprocess.Popen(
                    program.argv,
                    env=dict(program.env),
                    cwd=program.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=program.uid,
                    group=program.gid,
                    extra_groups=None if program.uid is None else [],
                )
            except OSError as error:
                log.write(f"{error}\n".encode())
                return None
            self._guard.watch(popen.pid, program.stop_signal)
            self._popen, self._since = popen, time.monotonic()
            return popen

    def _await_end(self, popen: subprocess.Popen[bytes]) -> str:
        code = popen.wait()
        with self._lock:
            self._popen = None
            # What it leaves (a pool whose parent was killed) would go on working beside its successor.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(popen.pid, signal.SIGKILL)
            self._guard.forget(popen.pid)
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

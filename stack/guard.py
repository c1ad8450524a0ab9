"""The guard outlives a killed ``millrace up`` by a few seconds, and leaves nothing of it behind.

A small process of its own, in a session of its own. Each child is announced to it over a pipe; when the pipe closes
while children are registered, the supervisor is dead, however it died, and the guard stops them. PR_SET_PDEATHSIG would
do less: it is bound to the *thread* that forked, is lost at a change of user, reaches no grandchildren (Celery's pool),
and exists on Linux only.

This file is also the guard's program (``python -I -S guard.py``), so it imports nothing but the standard library.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE_SECONDS = 3.0


class Guard:
    """Our end of the pipe. Safe to use from several threads."""

    def __init__(self, keep_open: tuple[int, ...] = ()) -> None:
        """``keep_open`` are file descriptors the guard holds as long as it works: the lock of the data folder."""
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            # -I -S: no user site, no site-packages; it starts in 10 ms and cannot be broken by what is installed
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it would hold the pipe of a killed `millrace up | less` open
            stderr=subprocess.DEVNULL,
            pass_fds=keep_open,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, pid: int, stop_signal: signal.Signals) -> None:
        """Be ready to stop the process group led by ``pid``."""
        self._tell(f"+ {pid} {int(stop_signal)}\n")

    def forget(self, pid: int) -> None:
        """The group led by ``pid`` has ended."""
        self._tell(f"- {pid}\n")

    def close(self) -> None:
        """End the guard; it first stops what is still registered."""
        stdin = self._process.stdin
        with self._lock, contextlib.suppress(BrokenPipeError):
            if stdin is not None:
                stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        stdin = self._process.stdin
        # without a guard the stack still works; only the promise for SIGKILL is lost
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            if stdin is not None:
                stdin.write(line.encode())
                stdin.flush()


def main() -> None:
    """Read registrations until the pipe closes, then stop whatever is left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # it leaves when the supervisor does, not before
    groups: dict[int, int] = {}
    for line in sys.stdin:
        match line.split():
            case ["+", pid, number]:
                groups[int(pid)] = int(number)
            case ["-", pid]:
                groups.pop(int(pid), None)
    _stop(groups)


def _stop(groups: dict[int, int]) -> None:
    for pid, number in groups.items():
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in groups:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()

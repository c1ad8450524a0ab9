"""A user's environment and its terminal, in which real processes of ``millrace`` run."""

import os
import pty
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.client import User

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
MILLRACE = str(BIN / "millrace")
PASSWORD = "correct horse battery"


class Terminal:
    """A user's environment: a home, an account (unless ``token`` is the way in), and the command."""

    def __init__(self, url: str, home: Path, token: str = "") -> None:
        self.url, self.home = url, home
        self.config = home / "config"
        self.username = f"user-{secrets.token_hex(6)}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "LC_", "XDG_"))}
        self.env = {**kept, "XDG_CONFIG_HOME": str(self.config), "LANG": "en_GB.UTF-8", "COLUMNS": "150"}
        self.env |= {"MILLRACE_URL": url, "MILLRACE_TOKEN": token, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [MILLRACE, *words], env=self.env, cwd=self.home, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **more
        )

    def run(self, *words: str, said: str = "", exit_code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MILLRACE, *words],
            env=self.env | env,
            cwd=self.home,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == exit_code, (words, done)
        assert "Traceback" not in done.stderr
        return done


class Screen:
    """A process at a terminal of its own, and all it has drawn."""

    def __init__(self, at: Terminal, *words: str) -> None:
        self.drawn = ""
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.chdir(at.home)
            os.execve(MILLRACE, ["millrace", *words], at.env | {"TERM": "xterm-256color"})
        self._pid = pid

    def until(self, there: Callable[[str], object]) -> None:
        deadline = time.monotonic() + 30
        while not there(self.drawn):
            assert time.monotonic() < deadline, self.drawn
            if not self._read():
                raise AssertionError(f"ended: {self.drawn}")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def ended(self) -> int:
        while self._read():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        if not select.select([self._terminal], [], [], 30)[0]:
            return False
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:  # EIO: the other side has gone
            return False
        self.drawn += piece.decode(errors="replace")
        return bool(piece)


def pending(http: User) -> str:
    """A job that stays as it is until it is given a file."""
    job_id: str = http.http.post("/jobs", json={"title": "later"}).raise_for_status().json()["id"]
    return job_id

"""The data folder: what is kept between two runs, whose it is, and who is using it now."""

import contextlib
import fcntl
import json
import os
import secrets
import time
from pathlib import Path

from stack import StackFailed

LOCK_WAIT_SECONDS = 10.0

# name -> bytes of randomness; hex, so that a value needs no quoting in a URL, a shell or a configuration file
SECRETS = {
    "JWT_SECRET": 32,
    "ML_SERVICE_TOKEN": 32,
    "FLOWER_PASSWORD": 12,
    "POSTGRES_PASSWORD": 24,
    "REDIS_PASSWORD": 24,
    "MANGO_API_KEY": 16,
    "MANGO_API_SALT": 16,
    "S3_ACCESS_KEY_ID": 10,
    "S3_SECRET_ACCESS_KEY": 32,
}


class DataFolder:
    """``.millrace`` or another folder, locked while a stack uses it."""

    def __init__(self, path: Path) -> None:
        """Create the folder where it is missing and take its lock.

        Raises:
            StackFailed: it cannot be written, or another stack is using it.
        """
        self.path = path.absolute()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            # Started by root, Postgres runs as another user and has to pass through; files in it are 0600.
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            self.logs.chmod(0o700)
            self.lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StackFailed(f"cannot use the data folder {self.path}: {error.strerror}") from None
        try:
            self._lock()
            self.secrets = self._secrets()
        except BaseException:
            os.close(self.lock_fd)
            raise

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, name: str) -> Path:
        """The path of a fresh log; the one of the last run is kept beside it as ``<name>.log.1``."""
        path = self.logs / f"{name}.log"
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        path.touch(0o600)
        return path

    def release(self) -> None:
        """Give the lock back."""
        # Unlocked by name, not by closing: the guard, or a process forked from a test run, may hold a copy.
        fcntl.flock(self.lock_fd, fcntl.LOCK_UN)
        os.close(self.lock_fd)

    def _lock(self) -> None:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            owner = os.pread(self.lock_fd, 32, 0).decode().strip()
            # A dead owner was killed, and its guard holds the lock until it has stopped what was left.
            if _is_alive(owner) or time.monotonic() > deadline:
                raise StackFailed(f"another `millrace up` (process {owner}) is using {self.path}")
            time.sleep(0.1)
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)

    def _secrets(self) -> dict[str, str]:
        path = self.path / "secrets.json"
        try:
            kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise StackFailed(f"cannot read {path}: {error}") from None
        missing = {name: secrets.token_hex(size) for name, size in SECRETS.items() if name not in kept}
        if missing:
            kept |= missing
            write_private(path, json.dumps(kept, indent=2) + "\n")
        return kept


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, or nothing."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return True  # its owner is just writing its id
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

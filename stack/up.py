"""A whole stack: embedded servers, migrations, processes. ``running`` is its form for tests and the demo."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from domain.errors.neighbours import BadSetting
from domain.settings import from_environ
from stack import StackCancelled, StackFailed
from stack.environment import app_settings, child_environ, published, write_stack_env
from stack.folder import DataFolder, tail
from stack.guard import Guard
from stack.logs import Follower
from stack.network import accepts, answers, free_port, is_free
from stack.postgres import Postgres
from stack.process import Process, Program, Say
from stack.redis import Redis
from stack.s3 import BUCKET, S3
from stack.supervisor import Supervisor, read_procfile, shell

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
SETTLED_SECONDS = 2.0


class Server(Protocol):
    """An embedded server; ``variable`` is the setting that names a real one to use instead."""

    name: str
    variable: str
    port: int

    def prepare(self) -> None: ...
    def program(self, env: Mapping[str, str]) -> Program: ...
    def ready(self) -> bool: ...
    def settings(self) -> dict[str, str]: ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to start; ports that are None are chosen among the free ones."""

    port: int | None = None
    flower_port: int | None = None
    ml_port: int | None = None
    only: Collection[str] | None = None  # names of the Procfile; None is all of them
    without: Collection[str] = ()
    servers_only: bool = False
    migrate: bool = True
    procfile: Path = ROOT / "Procfile"
    verbose: bool = False


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    data_dir: Path
    url: str  # of the API, without /api/v1
    env: Mapping[str, str]  # the settings by the names of their variables
    processes: Mapping[str, Process]  # by name: postgres, redis, s3 and the names of the Procfile


@contextlib.contextmanager
def running(
    data_dir: Path | str | None = None,
    *,
    port: int | None = None,
    flower_port: int | None = None,
    ml_port: int | None = None,
    only: Collection[str] | None = None,
    servers_only: bool = False,
    migrate: bool = True,
    env: Mapping[str, str] | None = None,
    procfile: Path | None = None,
) -> Iterator[Stack]:
    """A stack for the length of a block, silent, on free ports unless given.

    ``data_dir`` None is a temporary folder, removed at the end. ``env`` is laid over the environment: settings to
    change, or ``DATABASE_URL`` and the like to use another server.

    Raises:
        StackFailed: something does not start within 60 s; its ``tail`` is the end of the log.
    """
    options = Options(
        port=port,
        flower_port=flower_port,
        ml_port=ml_port,
        only=only,
        servers_only=servers_only,
        migrate=migrate,
        procfile=procfile or ROOT / "Procfile",
    )
    with contextlib.ExitStack() as cleanup:
        if data_dir is None:
            data_dir = temporary_folder(cleanup)
        environ = {**os.environ, **(env or {})}
        yield cleanup.enter_context(started(Path(data_dir), options, environ, _silent, threading.Event()))


@contextlib.contextmanager
def started(
    data_dir: Path, options: Options, environ: Mapping[str, str], say: Say, cancel: threading.Event
) -> Iterator[Stack]:
    """Start everything, hand it over when it is ready, stop everything at the end of the block.

    Raises:
        StackFailed: something does not start.
        StackCancelled: ``cancel`` was set before it was ready.
    """
    commands = _selected(options)
    with contextlib.ExitStack() as cleanup:
        folder = DataFolder(data_dir)
        cleanup.callback(folder.release)
        guard = Guard(keep_open=(folder.lock_fd,))
        cleanup.callback(guard.close)
        supervisor = Supervisor(guard, say, cancel)
        if options.verbose:
            cleanup.enter_context(Follower(supervisor.processes))
        cleanup.callback(supervisor.stop)

        servers = _servers(folder, environ)
        ports = _ports(options, frozenset(server.port for server in servers))
        settings = app_settings(folder, environ, ports)
        for server in servers:
            settings |= server.settings()
        env = child_environ(environ, settings)
        try:
            from_environ(env)
        except BadSetting as error:
            raise StackFailed(str(error)) from None

        _start_servers(servers, supervisor, env)
        cleanup.callback((folder.path / "stack.env").unlink, missing_ok=True)
        write_stack_env(folder, published(settings, environ))
        if not options.servers_only:
            if options.migrate:
                _migrate(folder, guard, env, cancel)
            if environ.get("ML_SERVICE_URL"):
                commands.pop("ml", None)
            _start_apps(commands, supervisor, folder, env, ports)
        yield Stack(folder.path, f"http://127.0.0.1:{ports['api']}", settings, supervisor.processes)


def _servers(folder: DataFolder, environ: Mapping[str, str]) -> list[Server]:
    def port(name: str) -> int | None:
        return int(environ.get(name) or 0) or None

    kinds: dict[str, type[Postgres] | type[Redis] | type[S3]] = {"POSTGRES": Postgres, "REDIS": Redis, "S3": S3}
    servers: list[Server] = []
    for name, kind in kinds.items():
        if environ.get(kind.variable):
            continue
        if kind is S3:
            servers.append(S3(folder, port("S3_PORT"), environ.get("S3_BUCKET") or BUCKET))
        else:
            servers.append(kind(folder, port(f"{name}_PORT")))
    return servers


def _ports(options: Options, taken: frozenset[int]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name, given in (("api", options.port), ("flower", options.flower_port), ("ml", options.ml_port)):
        if given and not is_free(given):
            raise StackFailed(f"port {given} for {name} is in use: name another one")
        ports[name] = given or free_port(taken=taken | frozenset(ports.values()))
    return ports


def _start_servers(servers: list[Server], supervisor: Supervisor, env: Mapping[str, str]) -> None:
    if not servers:
        return

    def start(server: Server) -> None:
        server.prepare()
        supervisor.start(server.program(env), server=True)

    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(start, servers))
    supervisor.wait_ready({server.name: server.ready for server in servers}, READY_SECONDS)


def _migrate(folder: DataFolder, guard: Guard, env: Mapping[str, str], cancel: threading.Event) -> None:
    log = folder.log("migrate")
    with log.open("wb") as output:
        migration = subprocess.Popen(
            [sys.executable, "-m", "migrations"],
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    guard.watch(migration.pid, signal.SIGTERM)
    deadline = time.monotonic() + READY_SECONDS
    while migration.poll() is None:
        if cancel.wait(0.02) or time.monotonic() > deadline:
            migration.kill()
            migration.wait()
    guard.forget(migration.pid)
    if cancel.is_set():
        raise StackCancelled
    if migration.returncode != 0:
        raise StackFailed(f"the migration failed with exit code {migration.returncode} (log: {log})", tail(log))


def _start_apps(
    commands: Mapping[str, str],
    supervisor: Supervisor,
    folder: DataFolder,
    env: Mapping[str, str],
    ports: Mapping[str, int],
) -> None:
    checks: dict[str, Callable[[], bool]] = {}
    for name, command in commands.items():
        process = supervisor.start(Program(name=name, argv=shell(command), env=env, cwd=ROOT, log=folder.log(name)))
        checks[name] = partial(_has_settled, process)
    asked = {
        "api": lambda: answers(ports["api"], "/health/ready"),
        "flower": lambda: accepts(ports["flower"]),
        "ml": lambda: accepts(ports["ml"]),
    }
    checks |= {name: check for name, check in asked.items() if name in commands}
    supervisor.wait_ready(checks, READY_SECONDS)


def _has_settled(process: Process) -> bool:
    """For what has no port to ask: a worker that cannot import its tasks is dead by then."""
    return process.uptime >= SETTLED_SECONDS


def _selected(options: Options) -> dict[str, str]:
    if options.servers_only:
        return {}
    commands = read_procfile(options.procfile)
    for name in (*(options.only or ()), *options.without):
        if name not in commands:
            raise StackFailed(f"no process {name!r}; {options.procfile.name} has {', '.join(commands)}")
    chosen = commands if options.only is None else options.only
    return {name: command for name, command in commands.items() if name in chosen and name not in options.without}


def temporary_folder(cleanup: contextlib.ExitStack) -> Path:
    """A data folder that is removed with ``cleanup``, open enough for the user Postgres runs as."""
    folder = Path(tempfile.mkdtemp(prefix="millrace-"))

    def remove() -> None:
        for path in ((folder / "postgres").resolve(), folder):  # the first may be a link out of the folder
            shutil.rmtree(path, ignore_errors=True)

    cleanup.callback(remove)
    return folder


def _silent(line: str) -> None:
    """Tests look at logs."""

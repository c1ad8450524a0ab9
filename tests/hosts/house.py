"""A house of several hosts: its servers on one, Redis and the API on one each, workers on two."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import ThreadingHTTPServer
from typing import Any

import psycopg
from psycopg.rows import dict_row

from stack.environment import app_settings, child_environ
from stack.folder import DataFolder
from stack.guard import Guard
from stack.postgres import Postgres
from stack.process import Process, Program
from stack.redis import Redis
from stack.s3 import S3
from stack.supervisor import Supervisor, read_procfile
from stack.up import ROOT, temporary_folder
from tests.hosts.network import Network
from tests.scripted_ml import Answered, ScriptedMl

LOCAL = "127.0.0.1"
SUBNET = "10.77.0.0/16"
HOSTS = {"core": "10.77.0.1", "redis": "10.77.0.2", "api": "10.77.0.3", "w1": "10.77.0.11", "w2": "10.77.0.12"}
WORKERS = ("w1", "w2")
LEASE, SWEEP = 4.0, 0.5
TOKEN = "token-of-the-ml-service-on-core"
START_SECONDS = 60.0


class HoldingMl(ScriptedMl):
    """Keeps the first submission of each job with the profile `held` waiting until ``let_go``; later ones not."""

    def __init__(self, token: str, host: str) -> None:
        self._host = host
        self._gates: dict[str, threading.Event] = {}
        super().__init__(token)
        self.url = f"http://{host}:{self.port}"

    def _listening(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer((self._host, port), self._handler())
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked may be cut off by now
        return server

    def let_go(self, job_id: str) -> None:
        self._gate(job_id).set()

    def stop(self) -> None:
        for gate in list(self._gates.values()):
            gate.set()
        super().stop()

    def _gate(self, job_id: str) -> threading.Event:
        return self._gates.setdefault(job_id, threading.Event())

    def _held(self, request: dict[str, Any]) -> Answered:
        job_id = request["job_uuid"]
        if len(self.submissions(job_id)) == 1:
            self._gate(job_id).wait(120)
        return self._instant(request)


@dataclass(frozen=True)
class House:
    url: str
    env: Mapping[str, str]
    network: Network
    ml: HoldingMl
    processes: Mapping[str, Process]

    def query(self, query: str, *values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.env["DATABASE_URL"], autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def log(self, name: str) -> str:
        return self.processes[name].program.log.read_text(errors="replace")


@contextmanager
def house_of_hosts() -> Iterator[House]:
    """Everything started and ready; at the end every process is stopped and every namespace removed.

    This thread is on `core` meanwhile, and with it the servers, the ML service, the sweep and the beat.
    """
    with ExitStack() as cleanup:
        network = cleanup.enter_context(Network(HOSTS))
        cleanup.enter_context(network.inside("core"))
        folder = DataFolder(temporary_folder(cleanup))
        cleanup.callback(folder.release)
        guard = Guard(keep_open=(folder.lock_fd,))
        cleanup.callback(guard.close)
        supervisor = Supervisor(guard, lambda _: None, threading.Event())
        cleanup.callback(supervisor.stop)
        ml = cleanup.enter_context(HoldingMl(TOKEN, HOSTS["core"]))
        env = _settings(folder, ml) | _servers(folder, network, supervisor)
        environ = child_environ(os.environ, env)
        subprocess.run([sys.executable, "-m", "migrations"], env=environ, cwd=ROOT, check=True, capture_output=True)
        _apps(folder, network, supervisor, environ)
        yield House(f"http://{HOSTS['api']}:{env['PORT']}", env, network, ml, supervisor.processes)


def _settings(folder: DataFolder, ml: HoldingMl) -> dict[str, str]:
    settings = app_settings(folder, {}, {"api": 8000, "flower": 5555, "ml": ml.port})
    return settings | {
        "PUBLIC_URL": f"http://{HOSTS['api']}:8000",
        "ML_SERVICE_URL": ml.url,
        "ML_SERVICE_TOKEN": TOKEN,
        "ML_PROFILES": "instant,held",
        "ML_DEFAULT_PROFILE": "instant",
        "ML_REQUEST_SECONDS": "60",
        "LEASE_SECONDS": str(LEASE),
        "SWEEP_SECONDS": str(SWEEP),
        "REDISPATCH_SECONDS": "5",
        "LOG_FORMAT": "json",
    }


def _servers(folder: DataFolder, network: Network, supervisor: Supervisor) -> dict[str, str]:
    """The embedded servers, made to listen on their host's address; their settings, as all hosts reach them.

    By themselves they listen on 127.0.0.1 only, and that is right: what `make up` starts is for one machine.
    """
    postgres, redis, s3 = Postgres(folder), Redis(folder), S3(folder)
    settings: dict[str, str] = {}
    for server, host in ((postgres, "core"), (redis, "redis"), (s3, "core")):
        server.prepare()
        program = server.program(child_environ(os.environ, {}))
        if server is redis:
            configuration = folder.path / "redis" / "redis.conf"
            configuration.write_text(configuration.read_text().replace(f"bind {LOCAL}", f"bind {HOSTS[host]}"))
            program = replace(program, argv=network.on(host, " ".join(program.argv)))
        else:
            program = replace(program, argv=tuple(_listen(word, HOSTS[host]) for word in program.argv))
        if server is postgres:
            with (folder.path / "postgres" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {SUBNET} scram-sha-256\n")
        supervisor.start(program, server=True)
        for name, value in server.settings().items():
            settings[name] = value.replace(LOCAL, HOSTS[host])
    supervisor.wait_ready(
        {
            "postgres": postgres.ready,
            "redis": lambda: _accepts(HOSTS["redis"], redis.port),
            "s3": lambda: _accepts(HOSTS["core"], s3.port),
        },
        START_SECONDS,
    )
    return settings


def _listen(word: str, address: str) -> str:
    if word.startswith("--listen_addresses="):
        return f"{word},{address}"
    return word.replace(LOCAL, address) if word.startswith("--addr=") else word


def _apps(folder: DataFolder, network: Network, supervisor: Supervisor, environ: Mapping[str, str]) -> None:
    commands = read_procfile(ROOT / "Procfile")
    started = {
        "api": ("api", commands["api"].replace(LOCAL, HOSTS["api"])),
        "sweeper": ("core", commands["sweeper"]),
        "beat": ("core", commands["beat"]),
        **{host: (host, commands["worker"]) for host in WORKERS},
    }
    for name, (host, command) in started.items():
        argv = network.on(host, command)
        supervisor.start(Program(name=name, argv=argv, env=environ, cwd=ROOT, log=folder.log(name)))
    checks: dict[str, Callable[[], bool]] = {"api": lambda: _accepts(HOSTS["api"], int(environ["PORT"]))}
    for name in ("sweeper", *WORKERS):
        log = supervisor.processes[name].program.log
        checks[name] = lambda log=log: " ready." in log.read_text(errors="replace")  # type: ignore[misc]
    supervisor.wait_ready(checks, START_SECONDS)


def _accepts(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of ``condition``, asked until ``seconds`` are over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return answer

"""pytest-celery's nodes over plain processes: the same API, and no container anywhere.

Its nodes, clusters and setups only need an object with the container's methods. ``ProcessContainer`` is one for a
``stack.process.Process``: it stays dead when it was killed, until ``restart``, as a container does.
"""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import psutil
import psycopg
from celery import Celery
from pytest_celery import CeleryTestBroker, CeleryTestContainer, CeleryTestSetup, CeleryTestWorker

from stack.network import accepts, answers
from stack.process import Process
from stack.up import Stack

READY_SECONDS = 30.0


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of ``condition``, asked until ``seconds`` are over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
    return answer


class ProcessContainer(CeleryTestContainer):  # type: ignore[misc]
    """A supervised process with a container's methods.

    ``is_ready`` is asked until it is true, by ``ready`` and after ``restart``; ``prompt`` in its log is another way.
    """

    def __init__(
        self,
        process: Process,
        *,
        is_ready: Callable[[], bool] | None = None,
        prompt: str | None = None,
        celeryconfig: dict[str, Any] | None = None,
    ) -> None:
        # not super().__init__: it asks a Docker daemon
        self.process = process
        self._is_ready, self._prompt, self._celeryconfig = is_ready, prompt, celeryconfig or {}
        self._log_from = 0

    @property
    def client(self) -> psutil.Process:
        """The process itself.

        Raises:
            psutil.NoSuchProcess: it does not run.
        """
        if (pid := self.process.pid) is None:
            raise psutil.NoSuchProcess(0, self.name)
        return psutil.Process(pid)

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return dict(self._celeryconfig)

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def id(self) -> str:
        return f"{self.name}-{self.process.pid or 0}"

    @property
    def status(self) -> str:
        return "running" if self.process.pid is not None else "exited"

    @property
    def ready_prompt(self) -> str | None:
        return self._prompt

    def logs(self) -> str:
        """What it has written since its last start by ``restart``."""
        with self.process.program.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace")

    def reload(self) -> None:
        """Nothing is cached."""

    def ready(self) -> bool:
        """
        Raises:
            AssertionError: it is not ready within 30 s.
        """
        eventually(self._ready_now, READY_SECONDS, f"{self.name} is ready; its log ends with {self.logs()[-500:]!r}")
        return True

    def _ready_now(self) -> bool:
        if self.process.pid is None or (self._prompt is not None and self._prompt not in self.logs()):
            return False
        return self._is_ready is None or self._is_ready()

    def kill(self, signal: str | int = "SIGKILL") -> None:  # the container's own name for it
        """Send the signal; on SIGKILL the whole group goes and stays away, on SIGTERM and the like until its end."""
        number = _number(signal)
        if number in (_SIGSTOP, _SIGCONT):
            self.process.signal(number)
            return
        stop_signal = self.process.program.stop_signal
        self.process.program = replace(self.process.program, stop_signal=number)
        try:
            self.process.stop(grace=READY_SECONDS)
        finally:
            self.process.program = replace(self.process.program, stop_signal=stop_signal)

    def restart(self, timeout: float = READY_SECONDS) -> None:
        """Stop it as its operator would, start it, and wait until it is ready."""
        if self.status == "running":
            self.process.stop(grace=timeout)
        self.start()
        self.ready()

    def start(self) -> None:
        """Start it and do not wait."""
        self._log_from = self.process.program.log.stat().st_size
        self.process.start()

    def teardown(self) -> None:
        """Leave it running: the next test finds what this one found."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.signal(_SIGCONT)
        if self.status != "running":
            self.restart()


_SIGSTOP, _SIGCONT = signal.SIGSTOP, signal.SIGCONT


def _number(name: str | int) -> signal.Signals:
    return signal.Signals[name] if isinstance(name, str) else signal.Signals(name)


class RedisBroker(CeleryTestBroker):  # type: ignore[misc]
    """The stack's Redis. A restart finds it empty: it keeps nothing on disk."""


class MillraceWorker(CeleryTestWorker):  # type: ignore[misc]
    """A worker of the Procfile."""

    @property
    def version(self) -> str:
        return version("celery")

    @property
    def worker_name(self) -> str:
        """The name it has in Celery, without the host."""
        arguments = self.container.client.cmdline()
        return str(arguments[arguments.index("-n") + 1]).partition("@")[0]

    @property
    def worker_queue(self) -> str:
        arguments = self.container.client.cmdline()
        return str(arguments[arguments.index("-Q") + 1])

    @property
    def children(self) -> list[psutil.Process]:
        """The processes of its pool."""
        try:
            return list(self.container.client.children())
        except psutil.NoSuchProcess:
            return []

    def get_running_processes_info(
        self, columns: list[str] | None = None, filters: dict[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Of the worker and its pool, by psutil in place of a program in the container."""
        processes = [self.container.client, *self.children]
        infos = [process.as_dict(columns or ["pid", "name", "cmdline", "create_time"]) for process in processes]
        return [info for info in infos if all(info.get(key) == value for key, value in (filters or {}).items())]


class MillraceSetup(CeleryTestSetup):  # type: ignore[misc]
    """Broker and workers; results are in Postgres, so there is no backend."""

    @classmethod
    def name(cls) -> str:
        return "millrace"

    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)


def containers(stack: Stack) -> dict[str, ProcessContainer]:
    """Every process of the stack, by name, each with its own way of being ready."""
    ports = {name: int(stack.env[name]) for name in ("PORT",)}
    checks: dict[str, Callable[[], bool]] = {"api": partial(answers, ports["PORT"], "/health/ready")}
    checks |= {name: partial(accepts, _port(stack, variable)) for name, variable in _SERVERS.items()}
    checks["postgres"] = partial(_takes_queries, stack.env["DATABASE_URL"])
    prompts = {"worker": " ready.", "sweeper": " ready.", "beat": "is starting."}
    url = stack.env["REDIS_URL"]
    config = {"redis": {"url": url, "host_url": url}}
    return {
        name: ProcessContainer(
            process, is_ready=checks.get(name), prompt=prompts.get(name), celeryconfig=config.get(name)
        )
        for name, process in stack.processes.items()
    }


def _takes_queries(url: str) -> bool:
    """A server that starts up, or recovers, accepts connections and refuses them by name."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


_SERVERS = {"redis": "REDIS_URL", "s3": "S3_ENDPOINT_URL"}


def _port(stack: Stack, variable: str) -> int:
    return int(stack.env[variable].partition("://")[2].rpartition("@")[2].partition("/")[0].rpartition(":")[2])

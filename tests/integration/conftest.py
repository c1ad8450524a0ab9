"""Running stacks for the tests: each on free ports with a folder of its own, so two test runs do not meet."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from stack.up import Stack, running
from tests.brokers import broker_env
from tests.client import WITH_ADMIN, User
from tests.own_settings import settings_of
from tests.scripted_ml import PROFILES, ScriptedMl
from tests.tus_client import TUS_LIMIT, Tus

ML_TOKEN = "token-of-the-scripted-ml-service"


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Everything, as `make up` starts it, with the reference ML service."""
    with running(env={**WITH_ADMIN, **broker_env()}) as stack:
        yield stack


@pytest.fixture(scope="session")
def scripted_ml() -> Iterator[ScriptedMl]:
    with ScriptedMl(ML_TOKEN) as ml:
        yield ml


@pytest.fixture(scope="session")
def scripted(scripted_ml: ScriptedMl) -> Iterator[Stack]:
    """API and workers before an ML service that behaves as the job's profile says; everything waits less."""
    env = {
        "ML_SERVICE_URL": scripted_ml.url,
        "ML_SERVICE_TOKEN": ML_TOKEN,
        "ML_PROFILES": PROFILES,
        "ML_REQUEST_SECONDS": "1",
        "ML_DEADLINE_SECONDS": "3",
        "ML_CIRCUIT_FAILURES": "1000",  # what one test does to the service must not hold up the next
        "RETRY_ATTEMPTS": "3",
        "RETRY_BASE_SECONDS": "0.2",
        "SWEEP_SECONDS": "0.5",
        "LEASE_SECONDS": "3",
        "MAX_UPLOAD_BYTES": str(8 * 1024**2),
        "ARCHIVE_MAX_RATIO": "100",
        "LOG_FORMAT": "json",
        **broker_env(),
    }
    with running(env=env, only=["api", "worker", "sweeper", "beat"]) as stack:
        yield stack


@pytest.fixture
def user(stack: Stack) -> Iterator[User]:
    with User(stack.url) as user:
        yield user


@pytest.fixture
def scripted_user(scripted: Stack) -> Iterator[User]:
    with User(scripted.url) as user:
        yield user


@pytest.fixture
def rows(scripted: Stack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The database behind ``scripted``, to look at."""
    with psycopg.connect(
        scripted.env["DATABASE_URL"], row_factory=psycopg.rows.dict_row, autocommit=True
    ) as connection:
        yield connection


@pytest.fixture(scope="module")
def in_process() -> Iterator[Stack]:
    """Servers that this very process's settings point to: for tests that call storage and workers directly."""
    with running(servers_only=True) as stack, settings_of(stack.env):
        yield stack


@pytest.fixture(scope="session")
def tus_stack() -> Iterator[Stack]:
    """An API alone, which this process's settings do not point to: what becomes of an upload is up to its requests."""
    with running(env={"MAX_UPLOAD_BYTES": str(TUS_LIMIT)}, only=["api"]) as stack:
        yield stack


@pytest.fixture
def tus(tus_stack: Stack) -> Iterator[Tus]:
    with Tus(tus_stack.url) as user:
        yield user

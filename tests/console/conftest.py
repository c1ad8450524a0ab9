"""A stack with an ML service that waits to be told to go on, and windows of a real Chromium before it."""

import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from stack.up import Stack, running
from tests.brokers import broker_env
from tests.browser import Visitor, chromium
from tests.console.world import PASSWORD, ZIP, PacedMl, job
from tests.integration.conftest import ML_TOKEN
from tests.scripted_ml import PROFILES


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # no longer than a file: as long as it is there its event loop runs, and tests of others could not run their own
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def ml(browser: Any) -> Iterator[PacedMl]:
    ml = PacedMl(ML_TOKEN)
    with ml:
        yield ml
        ml.on.set()


@pytest.fixture(scope="module")
def house(ml: PacedMl) -> Iterator[Stack]:
    env = {
        "ML_SERVICE_URL": ml.url,
        "ML_SERVICE_TOKEN": ML_TOKEN,
        "ML_PROFILES": f"{PROFILES},paced",
        "ML_DEFAULT_PROFILE": "paced",
        "SWEEP_SECONDS": "0.5",
        "LEASE_SECONDS": "3",
        "MAX_UPLOAD_BYTES": str(24 * 1024**2),
        **broker_env(),
    }
    with running(only=["api", "worker", "sweeper", "beat"], env=env) as stack:
        yield stack


@pytest.fixture
def visitor(house: Stack, browser: Any, ml: PacedMl) -> Iterator[Visitor]:
    ml.on.clear()
    visitor = Visitor(browser, house.url)
    visitor.enter(f"v-{secrets.token_hex(5)}", PASSWORD)
    yield visitor
    ml.on.set()
    visitor.close()


@pytest.fixture(scope="module")
def done(house: Stack, browser: Any, ml: PacedMl) -> Iterator[Visitor]:
    """With one job that has succeeded, on the list; it is only looked at."""
    ml.on.set()
    visitor = Visitor(browser, house.url)
    visitor.enter(f"d-{secrets.token_hex(5)}", PASSWORD)
    visitor.page.locator("#files").set_input_files([ZIP])
    job(visitor, "succeeded").wait_for()
    yield visitor
    visitor.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """axe-core's script, where npm can fetch it; the other checks do without."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "axe-core@4"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return (folder / "node_modules/axe-core/axe.min.js").read_text()

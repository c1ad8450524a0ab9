"""A database without calls, recordings or deliveries."""

import pytest

from migrations.__main__ import upgrade
from stack.up import Stack
from tests.call_rows import clear


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def nothing_there() -> None:
    clear()

"""A database, and the Redis that the hub of this process listens to."""

import pytest

from migrations.__main__ import upgrade
from stack.up import Stack


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()

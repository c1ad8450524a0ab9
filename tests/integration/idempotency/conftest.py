"""A key of the test's own."""

from uuid import uuid4

import pytest


@pytest.fixture
def key() -> str:
    return str(uuid4())

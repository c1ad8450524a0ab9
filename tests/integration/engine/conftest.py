"""A database for the engine of this very process, and leases that run out soon."""

from collections.abc import Iterator

import pytest

from migrations.__main__ import upgrade
from stack.up import Stack
from storage.configuration import settings
from tests.tiny_pipelines import LEASE
from workers import leases


@pytest.fixture(scope="module", autouse=True)
def short_leases(in_process: Stack) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASE_SECONDS", str(LEASE))
        settings.cache_clear()
        patch.setattr(leases, "heartbeat", leases.Heartbeat())
        upgrade()
        yield

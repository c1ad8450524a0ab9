"""Only `make test-hosts` comes here: it needs root and iproute2, which nothing else does."""

from collections.abc import Iterator

import pytest

from tests.client import User
from tests.hosts.house import House, house_of_hosts
from tests.hosts.network import Network


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    if missing := Network.missing():
        pytest.exit(missing, returncode=1)
    with house_of_hosts() as house:
        yield house


@pytest.fixture
def user(house: House) -> Iterator[User]:
    with User(house.url) as user:
        yield user

"""A real server process before a real Postgres and Redis, in which nothing goes wrong unseen."""

import os
from collections.abc import Iterator

import httpx
import pytest
import redis
from sqlalchemy import create_engine

from stack.up import running
from storage.accounts import accounts
from storage.database import metadata
from tests.account_server import Call, Server
from tests.api_process import api_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(servers_only=True, migrate=False) as stack:
        environ = {**os.environ, **stack.env, "LOG_FORMAT": "json"}
        database = create_engine(environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
        metadata.create_all(database, tables=[accounts])
        log = tmp_path_factory.mktemp("api") / "api.log"
        with redis.Redis.from_url(environ["REDIS_URL"]) as connection, api_process(environ, log) as api:
            server = Server(api, environ, database, connection)
            yield server
        database.dispose()
    assert server.lines()
    assert [line for line in server.lines() if line["level"] in ("error", "critical")] == []
    assert "Traceback" not in log.read_text()


@pytest.fixture(autouse=True)
def _no_limits_left_over(server: Server) -> None:
    for key in server.redis.scan_iter("millrace:rate:*"):
        server.redis.delete(key)


@pytest.fixture
def register(server: Server) -> Call:
    return lambda **body: httpx.post(f"{server.url}/api/v1/auth/register", json=body, timeout=30)

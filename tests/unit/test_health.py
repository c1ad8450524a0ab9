"""Readiness answers in time and says little, however badly a neighbour behaves."""

import threading
import time
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api import health


class Redis:
    async def ping(self) -> bool:
        return True


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Any:
    """GET /health/ready with these ways to ask Postgres and the storage."""

    def asked(postgres: Any, storage: Any) -> tuple[int, dict[str, str]]:
        monkeypatch.setattr(health, "CHECK_SECONDS", 0.2)
        monkeypatch.setattr(health, "_postgres", postgres)
        monkeypatch.setattr(health, "_storage", storage)
        health._limiter.cache_clear()
        app = Litestar(health.routes, logging_config=None)
        app.state.redis = Redis()
        with TestClient(app) as client:
            response = client.get("/health/ready")
        assert response.headers["cache-control"] == "no-store"
        return response.status_code, response.json()["parts"]

    return asked


def test_all_well_is_200(ask: Any) -> None:
    assert ask(lambda: "ok", lambda: "ok") == (200, {"postgres": "ok", "redis": "ok", "storage": "ok"})


def test_one_that_is_down_makes_it_503_and_names_it(ask: Any) -> None:
    assert ask(lambda: "not_migrated", lambda: "ok") == (
        503,
        {"postgres": "not_migrated", "redis": "ok", "storage": "ok"},
    )


def test_neighbours_that_hang_are_waited_for_together_and_not_for_long(ask: Any) -> None:
    release = threading.Event()
    began = time.monotonic()
    try:
        status, parts = ask(lambda: release.wait(10), lambda: release.wait(10))
        took = time.monotonic() - began
    finally:
        release.set()
    assert (status, parts) == (503, {"postgres": "timeout", "redis": "ok", "storage": "timeout"})
    assert took < 5, "they hang for ten seconds"

"""Accounts of an API process of a test's own, with its database and its log at hand."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import redis
from sqlalchemy import Engine

from storage.accounts import accounts
from tests.api_process import ApiProcess

PASSWORD = "correct horse battery"
Call = Callable[..., httpx.Response]


class Server:
    """The API as a process of its own, and what stands behind it."""

    def __init__(self, api: ApiProcess, environ: dict[str, str], database: Engine, redis: "redis.Redis") -> None:
        self.url, self.log = api.url, api.log
        self.environ, self.database, self.redis = environ, database, redis

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class User:
    """A registered account with its token."""

    def __init__(self, server: Server, role: str = "user") -> None:
        self.name = f"u.{uuid4().hex[:12]}"
        self.server = server
        made = httpx.post(
            f"{server.url}/api/v1/auth/register", json={"username": self.name, "password": PASSWORD}, timeout=30
        )
        assert made.status_code == 201, made.text
        self.id = made.json()["id"]
        if role == "admin":
            with server.database.begin() as connection:
                connection.execute(accounts.update().where(accounts.c.id == UUID(self.id)).values(role="admin"))
        self.token = login(server, self.name).json()["access_token"]

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, f"{self.server.url}/api/v1{path}", headers=headers, timeout=30, **more)


def login(server: Server, username: str, password: str = PASSWORD) -> httpx.Response:
    return httpx.post(f"{server.url}/api/v1/auth/login", json={"username": username, "password": password}, timeout=30)


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code
    return problem


def new_name() -> str:
    return f"n.{uuid4().hex[:12]}"

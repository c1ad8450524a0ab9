"""Accounts over real HTTP, with a real Postgres and Redis behind a real server process."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import redis
from sqlalchemy import Engine, create_engine, text

from stack.up import running
from storage.accounts import accounts, hasher
from storage.database import metadata
from tests.api_process import ApiProcess, api_process

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(servers_only=True, migrate=False) as stack:
        environ = {**os.environ, **stack.env, "LOG_FORMAT": "json"}
        database = create_engine(environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
        metadata.create_all(database, tables=[accounts])
        log = tmp_path_factory.mktemp("api") / "api.log"
        with redis.Redis.from_url(environ["REDIS_URL"]) as connection, api_process(environ, log) as api:
            yield Server(api, environ, database, connection)
        database.dispose()


@pytest.fixture(autouse=True)
def _no_limits_left_over(server: Server) -> None:
    for key in server.redis.scan_iter("millrace:rate:*"):
        server.redis.delete(key)


@pytest.fixture
def register(server: Server) -> Call:
    return lambda **body: httpx.post(f"{server.url}/api/v1/auth/register", json=body, timeout=30)


def _name() -> str:
    return f"n.{uuid4().hex[:12]}"


# ---------------------------------------------------------------- registering and logging in


def test_registering_answers_the_account_and_where_it_is(register: Call, server: Server) -> None:
    name = _name()
    response = register(username=name, password=PASSWORD, email=f"{name}@example.org")
    assert response.status_code == 201
    account = response.json()
    assert set(account) == {"id", "username", "email", "role", "created_at", "updated_at"}
    assert (account["username"], account["role"]) == (name, "user")
    assert UUID(account["id"]).version == 7
    assert response.headers["location"] == f"/api/v1/users/{account['id']}"
    with server.database.connect() as connection:
        stored = connection.execute(
            text("SELECT password_hash FROM accounts WHERE id = :id"), {"id": account["id"]}
        ).scalar()
    assert hasher.verify(stored, PASSWORD)
    assert PASSWORD not in server.log.read_text()


def test_a_name_and_an_address_belong_to_one_whatever_the_case(register: Call) -> None:
    name = _name()
    assert register(username=name, password=PASSWORD, email=f"{name}@example.org").status_code == 201
    assert refused(register(username=name.upper(), password=PASSWORD), 409, "already_taken")["field"] == "username"
    again = register(username=_name(), password=PASSWORD, email=f"{name}@EXAMPLE.org")
    assert refused(again, 409, "already_taken")["field"] == "email"


def test_of_many_who_want_a_name_at_once_one_gets_it(register: Call) -> None:
    name = _name()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: register(username=name, password=PASSWORD).status_code, range(8)))
    assert sorted(answers) == [201] + [409] * 7


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "ab", "password": PASSWORD}, "username"),
        ({"username": "a b c", "password": PASSWORD}, "username"),
        ({"username": "abcd", "password": "short"}, "password"),
        ({"username": "abcd", "password": PASSWORD, "email": "nowhere"}, "email"),
        ({"username": "abcd", "password": PASSWORD, "role": "admin"}, "role"),
        ({"password": PASSWORD}, "username"),
    ],
)
def test_a_registration_that_breaks_a_rule_names_the_field(register: Call, body: dict[str, str], field: str) -> None:
    assert refused(register(**body), 422, "invalid")["field"] == field


def test_a_login_gives_a_token_that_opens_ones_account(server: Server) -> None:
    user = User(server)
    response = login(server, user.name.upper())
    assert response.status_code == 200
    assert response.json() == {
        "access_token": response.json()["access_token"],
        "expires_in": 3600,
        "token_type": "Bearer",
    }
    assert response.headers["cache-control"] == "no-store"
    assert user("GET", "/auth/me").json()["id"] == user.id


def test_a_wrong_password_and_an_unknown_name_are_told_alike(server: Server) -> None:
    user = User(server)
    wrong, unknown = login(server, user.name, "wrong password"), login(server, _name())
    assert refused(wrong, 401, "wrong_credentials")["detail"] == refused(unknown, 401, "wrong_credentials")["detail"]
    refused(login(server, "a\0b"), 401, "wrong_credentials")


def test_without_a_valid_token_every_route_is_closed(server: Server) -> None:
    some = uuid4()
    for method, path in [
        ("GET", "/auth/me"),
        ("GET", "/users"),
        ("GET", f"/users/{some}"),
        ("PUT", f"/users/{some}"),
        ("DELETE", f"/users/{some}"),
        ("GET", "/users/username/anna"),
    ]:
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic YTpi"}):
            response = httpx.request(method, f"{server.url}/api/v1{path}", headers=headers)
            refused(response, 401, "not_authenticated")
            assert response.headers["www-authenticate"].startswith("Bearer")


def test_the_eleventh_failed_login_of_a_minute_is_turned_away(server: Server) -> None:
    user = User(server)
    for left in range(9, -1, -1):
        response = login(server, user.name, "wrong password")
        refused(response, 401, "wrong_credentials")
        assert f"r={left};" in response.headers["ratelimit"]
    response = login(server, user.name)
    refused(response, 429, "rate_limited")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["ratelimit-policy"] == '"login";q=10;w=60'
    assert login(server, User(server).name).status_code == 200, "another name is not held back"


def test_logins_that_succeed_are_not_counted(server: Server) -> None:
    user = User(server)
    assert {login(server, user.name).status_code for _ in range(12)} == {200}


def test_guesses_made_at_once_are_all_counted(server: Server) -> None:
    user = User(server)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: login(server, user.name, "wrong password").status_code, range(25)))
    assert sorted(answers) == [401] * 10 + [429] * 15


# ---------------------------------------------------------------- accounts


def test_a_user_sees_itself_and_nobody_else(server: Server) -> None:
    one, other = User(server), User(server)
    assert one("GET", f"/users/{one.id}").json()["username"] == one.name
    assert one("GET", f"/users/username/{one.name.upper()}").json()["id"] == one.id
    for method, path in [
        ("GET", f"/users/{other.id}"),
        ("GET", f"/users/{uuid4()}"),
        ("GET", f"/users/username/{other.name}"),
        ("GET", f"/users/username/{_name()}"),
        ("GET", "/users/username/%00"),
        ("DELETE", f"/users/{other.id}"),
    ]:
        refused(one(method, path), 404, "not_found")
    refused(one("PUT", f"/users/{other.id}", json={"email": None}), 404, "not_found")
    assert refused(one("GET", "/users"), 403, "forbidden")["details"] == {"role": "admin"}
    assert other("GET", "/auth/me").status_code == 200


def test_an_admin_pages_through_all(server: Server) -> None:
    admin = User(server, "admin")
    made = [User(server).id for _ in range(3)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = admin("GET", "/users", params={"limit": 2, **after}).json()
        assert len(page["items"]) <= 2
        seen += [account["id"] for account in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted(set(seen)), "each once, in order"
    assert {admin.id, *made} <= set(seen)
    assert admin("GET", f"/users/{made[0]}").status_code == 200


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("after=x", "after")]
)
def test_a_page_is_bounded(server: Server, query: str, field: str) -> None:
    assert refused(User(server, "admin")("GET", f"/users?{query}"), 422, "invalid")["field"] == field


def test_a_user_changes_its_address_and_takes_it_back(server: Server) -> None:
    user = User(server)
    before = user("GET", "/auth/me").json()
    after = user("PUT", f"/users/{user.id}", json={"email": f"{user.name}@example.org"}).json()
    assert after["email"] == f"{user.name}@example.org"
    assert after["updated_at"] > before["updated_at"]
    other = User(server)
    taken = other("PUT", f"/users/{other.id}", json={"email": after["email"]})
    assert refused(taken, 409, "already_taken")["field"] == "email"
    assert user("PUT", f"/users/{user.id}", json={"email": None}).json()["email"] is None
    refused(user("PUT", f"/users/{user.id}", json={}), 422, "invalid")


def test_a_new_password_needs_the_old_one_and_ends_old_tokens(server: Server) -> None:
    user, new = User(server), "another battery staple"
    for body in ({"password": new}, {"password": new, "current_password": "wrong"}):
        assert refused(user("PUT", f"/users/{user.id}", json=body), 422, "invalid")["field"] == "current_password"
    assert user("PUT", f"/users/{user.id}", json={"password": new, "current_password": PASSWORD}).status_code == 200
    refused(user("GET", "/auth/me"), 401, "not_authenticated")
    refused(login(server, user.name), 401, "wrong_credentials")
    assert login(server, user.name, new).status_code == 200


def test_guessing_the_current_password_is_limited_too(server: Server) -> None:
    user = User(server)
    body = {"password": "another battery", "current_password": "wrong"}
    for _ in range(10):
        refused(user("PUT", f"/users/{user.id}", json=body), 422, "invalid")
    refused(user("PUT", f"/users/{user.id}", json=body), 429, "rate_limited")


def test_only_an_admin_gives_roles_and_they_count_at_once(server: Server) -> None:
    admin, user = User(server, "admin"), User(server)
    assert refused(user("PUT", f"/users/{user.id}", json={"role": "admin"}), 403, "forbidden")["field"] == "role"
    assert admin("PUT", f"/users/{user.id}", json={"role": "admin"}).json()["role"] == "admin"
    assert user("GET", "/users").status_code == 200, "with the token it had before"
    assert admin("PUT", f"/users/{user.id}", json={"role": "user"}).status_code == 200
    refused(user("GET", "/users"), 403, "forbidden")


def test_a_change_made_elsewhere_counts_within_five_seconds(server: Server) -> None:
    user = User(server)
    assert user("GET", "/auth/me").status_code == 200
    with server.database.begin() as connection:
        connection.execute(accounts.delete().where(accounts.c.id == UUID(user.id)))
    deadline = time.monotonic() + 5.5
    while (response := user("GET", "/users")).status_code != 401 and time.monotonic() < deadline:
        time.sleep(0.2)
    refused(response, 401, "not_authenticated")


def test_a_deleted_account_is_gone_at_once(server: Server) -> None:
    user = User(server)
    assert user("DELETE", f"/users/{user.id}").status_code == 204
    refused(user("GET", "/auth/me"), 401, "not_authenticated")
    refused(login(server, user.name), 401, "wrong_credentials")


def test_an_account_that_owns_something_stays(server: Server) -> None:
    user = User(server)
    with server.database.begin() as connection:
        connection.execute(text("CREATE TABLE belongings (owner uuid REFERENCES accounts(id) ON DELETE RESTRICT)"))
        connection.execute(text("INSERT INTO belongings VALUES (:id)"), {"id": user.id})
    try:
        problem = refused(user("DELETE", f"/users/{user.id}"), 409, "account_in_use")
        assert problem["details"] == {"what": "belongings"}
    finally:
        with server.database.begin() as connection:
            connection.execute(text("DROP TABLE belongings"))
    assert user("DELETE", f"/users/{user.id}").status_code == 204


def test_there_is_always_an_admin(server: Server) -> None:
    with server.database.begin() as connection:
        connection.execute(accounts.delete())
    admin = User(server, "admin")
    refused(admin("PUT", f"/users/{admin.id}", json={"role": "user"}), 409, "last_admin")
    refused(admin("DELETE", f"/users/{admin.id}"), 409, "last_admin")
    second = User(server, "admin")
    # the other is about to lay its role down: whoever asks now must wait for the outcome, and then be the last
    for method, body in (("PUT", {"role": "user"}), ("DELETE", None)):
        with ThreadPoolExecutor(1) as pool, server.database.connect() as connection:
            connection.execute(accounts.update().where(accounts.c.id == UUID(second.id)).values(role="user"))
            answer = pool.submit(admin, method, f"/users/{admin.id}", json=body)
            time.sleep(0.3)
            assert not answer.done()
            connection.commit()
            refused(answer.result(), 409, "last_admin")
        assert admin("PUT", f"/users/{second.id}", json={"role": "admin"}).status_code == 200
    assert admin("PUT", f"/users/{admin.id}", json={"role": "user"}).status_code == 200, "now there is another"


def _ensure_admin(server: Server, username: str, password: str) -> str:
    code = f"from storage.accounts import ensure_admin; print(ensure_admin({username!r}, {password!r}))"
    done = subprocess.run([sys.executable, "-c", code], env=server.environ, capture_output=True, text=True)
    return (done.stdout or done.stderr.splitlines()[-1]).strip()


def test_the_first_admin_is_made_once_and_left_alone_afterwards(server: Server) -> None:
    name = _name()
    assert _ensure_admin(server, name, PASSWORD) == "True"
    assert login(server, name).status_code == 200
    assert _ensure_admin(server, name.upper(), "another password") == "False"
    assert login(server, name).status_code == 200
    user = User(server)
    assert _ensure_admin(server, user.name, "another password") == "False"
    assert user("GET", "/auth/me").json()["role"] == "user", "a name somebody took is not made an admin"
    assert "ADMIN_PASSWORD" in _ensure_admin(server, _name(), "short")
    assert "ADMIN_USERNAME" in _ensure_admin(server, "a b", PASSWORD)


# ---------------------------------------------------------------- what surrounds every request


def test_health_says_how_the_neighbours_are(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").json()["name"] == "millrace"
    assert httpx.get(f"{server.url}/health/live").json() == {"status": "ok"}
    response = httpx.get(f"{server.url}/health/ready")
    parts = response.json()["parts"]
    assert (parts["redis"], parts["postgres"]) == ("ok", "not_migrated")
    assert response.status_code == 503, "the tables were made without a migration"
    with server.database.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('1')"))
    try:
        assert httpx.get(f"{server.url}/health/ready").json()["parts"]["postgres"] == "ok"
    finally:
        with server.database.begin() as connection:
            connection.execute(text("DROP TABLE alembic_version"))


def test_metrics_count_by_template_and_name_nobody(server: Server) -> None:
    user = User(server)
    user("GET", f"/users/{user.id}")
    httpx.request("PROPFIND", f"{server.url}/coffee-{user.name}")
    text_ = httpx.get(f"{server.url}/metrics").text
    assert 'millrace_http_requests_total{method="GET",route="/api/v1/users/{user_id}",status="200"}' in text_
    assert 'millrace_http_request_seconds_bucket{le="0.1",method="POST",route="/api/v1/auth/login"}' in text_
    assert 'method="other",route="unmatched",status="404"' in text_
    assert user.id not in text_
    assert user.name not in text_


def test_an_access_line_says_who_and_what(server: Server) -> None:
    user = User(server)
    request_id = f"trace-{uuid4().hex}"
    headers = {"Authorization": f"Bearer {user.token}", "X-Request-ID": request_id}
    response = httpx.get(f"{server.url}/api/v1/users/{user.id}?token=hunter2", headers=headers)
    assert response.headers["x-request-id"] == request_id
    assert "server" not in response.headers
    deadline = time.monotonic() + 5  # it is written when the answer is complete, which is when we have it
    while not (lines := [line for line in server.lines() if line.get("request_id") == request_id]):
        assert time.monotonic() < deadline, "no access line"
        time.sleep(0.02)
    (line,) = lines
    assert (line["event"], line["status"], line["account_id"]) == ("request", 200, user.id)
    assert line["route"] == "/api/v1/users/{user_id}"
    assert line["ms"] > 0
    assert "hunter2" not in server.log.read_text()
    assert user.token not in server.log.read_text()


def test_the_documentation_is_complete_and_needs_nothing_from_outside(server: Server) -> None:
    schema = httpx.get(f"{server.url}/docs/openapi.json").json()
    operation = schema["paths"]["/api/v1/users/{user_id}"]["put"]
    assert {"200", "401", "404", "422", "default"} <= operation["responses"].keys()
    assert list(operation["responses"]["400"]["content"]) == ["application/problem+json"], "not Litestar's own"
    assert operation["requestBody"]["content"]["application/json"]["examples"]
    assert schema["paths"]["/api/v1/auth/login"]["post"]["security"] == [{}]
    assert "security" not in operation, "so the document's own holds: bearer or session"
    assert schema["security"] == [{"bearer": []}, {"session": []}]
    for path in ("/docs", "/docs/errors"):
        page = httpx.get(f"{server.url}{path}")
        assert page.status_code == 200
        assert not re.search(r"<script|<link|<img|<iframe|\bsrc=|@import|url\(", page.text, re.I)
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "id='already_taken'" in httpx.get(f"{server.url}/docs/errors").text


def test_nothing_went_wrong_unseen(server: Server) -> None:
    assert server.lines()
    assert [line for line in server.lines() if line["level"] in ("error", "critical")] == []
    assert "Traceback" not in server.log.read_text()

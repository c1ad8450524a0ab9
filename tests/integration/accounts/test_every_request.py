"""What surrounds every request: health, metrics, the log, the documentation."""

import re
import time
from uuid import uuid4

import httpx
from sqlalchemy import text

from tests.account_server import Server, User


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

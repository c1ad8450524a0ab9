"""A secret that reaches a log line leaves it there and then."""

import io
import json
import logging
import sys
from typing import Any

import pytest
import structlog

from domain.settings import Settings
from storage import logs

CONFIG = Settings(
    public_url="http://127.0.0.1",
    database_url="x",
    redis_url="x",
    s3_endpoint_url="x",
    s3_access_key_id="x",
    s3_secret_access_key="x",
    jwt_secret="x" * 32,
    ml_service_url="x",
    ml_service_token="x" * 16,
    flower_password="x" * 16,
)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lines as this process writes them, parsed; the logging of the tests is put back afterwards."""
    root = logging.getLogger()
    handlers, level, out = root.handlers[:], root.level, io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.configure(CONFIG)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://millrace:hunter2@db:5432/millrace",
        "redis://:hunter2@cache:6379/0",
        "connection failed: host=db user=millrace password=hunter2 dbname=x",
        "connection failed: password='hunter2 x'",
        "GET http://s3/bucket/inputs/1?X-Amz-Algorithm=a&X-Amz-Signature=hunter2&X-Amz-Date=1 failed",
        "Authorization: Bearer hunter2hunter2",
        "header Basic aHVudGVyMg==hunter2",
        "/events?access_token=hunter2&x=1",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.hunter2",
    ],
)
def test_secrets_are_found_by_what_they_look_like(text: str) -> None:
    cleaned = logs.redact(None, "", {"event": text})["event"]
    assert "hunter2" not in cleaned
    assert logs.REDACTED in cleaned


@pytest.mark.parametrize(
    "key", ["password", "admin_password", "Authorization", "ml_service_token", "api_key", "jwt_secret", "Cookie"]
)
def test_secrets_are_found_by_their_key(key: str) -> None:
    event = logs.redact(
        None, "", {"event": "x", key: "hunter2", "inner": {key: "hunter2"}, "list": [{key: ["hunter2"]}]}
    )
    assert "hunter2" not in str(event)


def test_what_is_no_secret_stays() -> None:
    event = {
        "event": "GET http://ml/infer?profile=lung took 3 s",
        "ms": 3.5,
        "tokens_left": 4,
        "path": "/a?b=c",
        "x": None,
    }
    assert logs.redact(None, "", dict(event)) == event


def test_lines_of_libraries_and_ours_look_alike_and_carry_the_request(written: Any) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger("ours").info("done", rows=3)
    logging.getLogger("theirs").warning("slow %s", "postgresql://u:hunter2@h/d")
    ours, theirs = written()
    assert (ours["event"], ours["rows"], ours["level"], ours["logger"]) == ("done", 3, "info", "ours")
    assert theirs["event"] == f"slow postgresql://u:{logs.REDACTED}@h/d"
    for line in (ours, theirs):
        assert line["request_id"] == "r-1"
        assert line["at"].endswith("Z")
        assert "T" in line["at"]


def test_a_traceback_is_one_line_without_secrets(written: Any) -> None:
    def fail() -> None:
        raise RuntimeError("postgresql://u:hunter2@h/d")

    try:
        fail()
    except RuntimeError as error:
        structlog.get_logger("ours").error("failed", exc_info=error)
    (line,) = written()
    assert "RuntimeError" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert "hunter2" not in line["exception"]


def test_lines_below_the_level_are_not_written(written: Any) -> None:
    structlog.get_logger("ours").debug("x")
    logging.getLogger("theirs").debug("x")
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert written() == []

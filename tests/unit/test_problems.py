"""Whatever a handler raises, the client gets one RFC 9457 shape and nothing of our insides."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest
import structlog
from litestar import Litestar, Response, get, post
from litestar.exceptions import HTTPException, InternalServerException
from litestar.params import FromPath, FromQuery, JSONBody, RawBody
from litestar.testing import TestClient

import api.logs
from api import problems
from api.logs import RequestEnvelope
from domain.errors.accounts import AlreadyTaken, Forbidden, NotAuthenticated, RateLimited
from domain.errors.neighbours import DatabaseUnavailable
from domain.errors.requests import Invalid, NotFound

SECRET = "postgresql://millrace:hunter2@db/millrace"


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=3)]
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


RAISED: dict[str, Exception] = {
    "401": NotAuthenticated(),
    "403": Forbidden(role="admin"),
    "404": NotFound(what="job"),
    "409": AlreadyTaken(field="email"),
    "422": Invalid(field="threshold", reason="too high"),
    "429": RateLimited(seconds=7, retry_after=6.6),
    "503": DatabaseUnavailable(retry_after=1, dsn=SECRET),
    "500": RuntimeError(SECRET),
    "teapot": HTTPException(status_code=418, detail="short and stout"),
    "gone": InternalServerException("client disconnected prematurely"),
    "gateway": HTTPException(status_code=502, detail=SECRET),
}


@get("/raise/{what:str}", sync_to_thread=False)
def fail(what: FromPath[str]) -> None:
    raise RAISED[what]


@post("/body", sync_to_thread=False)
def take(data: JSONBody[Body]) -> None: ...


@get("/query", sync_to_thread=False)
def ask(limit: FromQuery[int]) -> None: ...


@post("/small", request_max_body_size=10)
async def small(body: RawBody) -> None: ...


@get("/plain", sync_to_thread=False)
def plain() -> Response[str]:
    return Response("x", headers={"X-Frame-Options": "SAMEORIGIN"})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    app = Litestar(
        [fail, take, ask, small, plain],
        exception_handlers={Exception: problems.answer},
        logging_config=None,
        debug=False,
    )
    app.asgi_handler = RequestEnvelope(app.asgi_handler)
    with TestClient(app) as client:
        yield client


@pytest.fixture(autouse=True)
def fresh_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that was used keeps the processors of that time, and an app made since has configured others."""
    for module in (api.logs, problems):
        monkeypatch.setattr(module, "_log", structlog.get_logger())


def _problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= problem.keys()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"/docs/errors#{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def test_an_error_of_ours_keeps_its_code_status_and_field(client: TestClient[Litestar]) -> None:
    problem = _problem(client.get("/raise/409"), 409, "already_taken")
    assert problem["field"] == "email"
    assert problem["detail"] == "This email is already taken."
    assert problem["instance"] == "/raise/409"
    assert _problem(client.get("/raise/422"), 422, "invalid")["field"] == "threshold"
    assert _problem(client.get("/raise/403"), 403, "forbidden")["details"] == {"role": "admin"}


def test_the_title_says_the_kind_and_the_detail_the_case(client: TestClient[Litestar]) -> None:
    problem = _problem(client.get("/raise/404"), 404, "not_found")
    assert problem["title"] == "Not found"
    assert problem["detail"] == "There is no such job."


@pytest.mark.parametrize(
    ("accepted", "language"), [("ru", "ru"), ("ru-RU,ru;q=0.9,en;q=0.8", "ru"), ("en-GB,ru", "en"), ("", "en")]
)
def test_it_speaks_the_language_asked_for_first(client: TestClient[Litestar], accepted: str, language: str) -> None:
    response = client.get("/raise/404", headers={"Accept-Language": accepted})
    assert response.headers["content-language"] == language
    assert ("Не найдено" in response.json()["detail"]) == (language == "ru")


def test_headers_that_belong_to_a_status(client: TestClient[Litestar]) -> None:
    assert client.get("/raise/401").headers["www-authenticate"].startswith("Bearer")
    assert client.get("/raise/429").headers["retry-after"] == "7"
    assert "retry-after" not in client.get("/raise/404").headers


@pytest.mark.parametrize("what", ["500", "gateway"])
def test_our_own_fault_is_logged_and_not_told(client: TestClient[Litestar], what: str) -> None:
    with structlog.testing.capture_logs() as lines:
        response = client.get(f"/raise/{what}")
    problem = _problem(response, 500, "internal_error")
    assert "hunter2" not in response.text
    assert "RuntimeError" not in response.text
    assert "details" not in problem
    (line,) = [line for line in lines if line["event"] == "request_failed"]
    assert line["exc_info"] is RAISED[what], "the log has the whole traceback"


def test_a_mistake_of_the_client_is_not_an_error_of_ours(client: TestClient[Litestar]) -> None:
    with structlog.testing.capture_logs() as lines:
        client.get("/raise/404")
    assert [line["log_level"] for line in lines] == ["info"], "its access line and no more"


def test_a_neighbour_that_is_down_may_be_tried_again(client: TestClient[Litestar]) -> None:
    response = client.get("/raise/503")
    problem = _problem(response, 503, "database_unavailable")
    assert problem["retryable"] is True
    assert response.headers["retry-after"] == "1"
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"name":"ab"}', "name"),
        (b'{"name":5}', "name"),
        (b'{"name":"abc","count":0}', "count"),
        (b'{"count":1}', "name"),
        (b'{"name":"abc","colour":1}', "colour"),
        (b"[]", "body"),
        (b"", "body"),
    ],
)
def test_a_body_that_breaks_a_rule_names_the_field(client: TestClient[Litestar], body: bytes, field: str) -> None:
    problem = _problem(client.post("/body", content=body), 422, "invalid")
    assert problem["field"] == field
    assert len(problem["detail"]) > 10


@pytest.mark.parametrize("body", [b"{", b"name=abc", b"\xff\xfe", b'{"name":"\\ud800"}'])
def test_a_body_that_is_not_json_is_malformed(client: TestClient[Litestar], body: bytes) -> None:
    _problem(client.post("/body", content=body), 400, "malformed_request")


def test_a_query_parameter_is_named(client: TestClient[Litestar]) -> None:
    assert _problem(client.get("/query?limit=many"), 422, "invalid")["field"] == "limit"
    problem = _problem(client.get("/query?token=abc"), 422, "invalid")
    assert problem["field"] == "limit"
    assert "abc" not in problem["detail"]


def test_validation_speaks_russian(client: TestClient[Litestar]) -> None:
    russian = {"Accept-Language": "ru"}
    for body in (
        b'{"name":"ab"}',
        b'{"name":5}',
        b'{"name":"abc","count":0}',
        b'{"count":1}',
        b'{"name":"abc","x":1}',
        b"",
    ):
        detail = client.post("/body", content=body, headers=russian).json()["detail"]
        assert "Expected" not in detail
        assert any("а" <= letter <= "я" for letter in detail)


def test_what_litestar_refuses_has_the_same_shape(client: TestClient[Litestar]) -> None:
    _problem(client.get("/nowhere"), 404, "not_found")
    response = client.delete("/body")
    _problem(response, 405, "method_not_allowed")
    assert "POST" in response.headers["allow"]
    assert _problem(client.post("/small", content=b"x" * 11), 413, "body_too_large")["details"] == {"limit": 10}
    _problem(client.get("/raise/teapot"), 400, "malformed_request")


def test_a_client_that_goes_away_is_not_an_error_of_ours(client: TestClient[Litestar]) -> None:
    _problem(client.get("/raise/gone"), 400, "client_gone")


def test_every_answer_carries_an_id_and_the_security_headers(client: TestClient[Litestar]) -> None:
    for path in ("/nowhere", "/raise/500", "/plain"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "content-security-policy" in headers
        assert len(headers["x-request-id"]) == 36
    assert client.get("/plain").headers["x-frame-options"] == "SAMEORIGIN", "a handler's own header wins"


@pytest.mark.parametrize(
    ("given", "kept"), [("checkout-42.b", True), ("short", False), ("a" * 65, False), ("a b\tcdefgh", False)]
)
def test_a_sane_request_id_is_taken_over(client: TestClient[Litestar], given: str, kept: bool) -> None:
    assert (client.get("/plain", headers={"X-Request-ID": given}).headers["x-request-id"] == given) == kept

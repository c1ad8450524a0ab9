"""The rules for names and passwords, and what an access token is worth."""

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import msgspec
import pytest
from argon2 import PasswordHasher
from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from api import problems, rates, security
from domain.accounts import AccountChange, Principal, Registration, Role
from domain.errors.accounts import NotAuthenticated, RateLimited
from domain.errors.requests import Conflict, NotFound
from domain.identity import new_id
from storage.accounts import Credentials
from storage.configuration import settings

SECRET = "0123456789abcdef0123456789abcdef"


def _registration(**changed: Any) -> Registration:
    return msgspec.convert({"username": "anna", "password": "12345678", **changed}, Registration)


@pytest.mark.parametrize("username", ["abc", "a" * 50, "Anna.Petrova_7-x", "..."])
def test_names_that_fit(username: str) -> None:
    assert _registration(username=username).username == username


@pytest.mark.parametrize("username", ["ab", "a" * 51, "anna petrova", "анна", "anna\n", "a/b", "a\0b", "", "аdmin"])
def test_names_that_do_not(username: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        _registration(username=username)


@pytest.mark.parametrize(
    ("password", "fits"), [("1234567", False), ("12345678", True), ("п" * 128, True), ("p" * 129, False)]
)
def test_a_password_has_8_to_128_characters(password: str, fits: bool) -> None:
    if fits:
        assert _registration(password=password).password == password
    else:
        with pytest.raises(msgspec.ValidationError):
            _registration(password=password)


@pytest.mark.parametrize("email", ["a@b.ru", "anna+x@пример.рф", None])
def test_addresses_that_fit(email: str | None) -> None:
    assert _registration(email=email).email == email


@pytest.mark.parametrize(
    "email", ["", "anna", "a@b", "a b@c.ru", "a@b..ru", "a@@b.ru", "a@b.ru\n", "a\0@b.ru", "a" * 250 + "@b.ru"]
)
def test_addresses_that_do_not(email: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        _registration(email=email)


def test_nobody_chooses_a_role_at_registration() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `role`"):
        _registration(role="admin")


def test_a_change_knows_absent_from_null() -> None:
    assert msgspec.json.decode(b"{}", type=AccountChange).email is msgspec.UNSET
    assert msgspec.json.decode(b'{"email":null}', type=AccountChange).email is None


# ---------------------------------------------------------------- tokens and passwords


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[Credentials]:
    """An account that is there, without a database."""
    needed = {
        "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x",
        "REDIS_URL": "redis://127.0.0.1:1",
        "PUBLIC_URL": "http://127.0.0.1",
        "S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "S3_ACCESS_KEY_ID": "k",
        "S3_SECRET_ACCESS_KEY": "s",
        "JWT_SECRET": SECRET,
        "ML_SERVICE_URL": "http://127.0.0.1:1",
        "ML_SERVICE_TOKEN": "t" * 16,
        "FLOWER_PASSWORD": "f" * 16,
    }
    for name, value in needed.items():
        monkeypatch.setitem(os.environ, name, value)
    settings.cache_clear()
    account = Credentials(
        id=new_id(), username="anna", password_hash=security.hasher.hash("12345678"), role=Role.USER, generation=3
    )
    monkeypatch.setattr(security.accounts, "credentials_by_id", {account.id: account}.get)
    yield account
    settings.cache_clear()
    security.forget(account.id)


def _claims(known: Credentials, **changed: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    claims = {
        "sub": str(known.id),
        "role": "user",
        "gen": known.generation,
        "iat": now,
        "exp": now + timedelta(minutes=5),
    }
    return {name: value for name, value in {**claims, **changed}.items() if value is not None}


def test_a_granted_token_names_its_account(known: Credentials) -> None:
    token = security.grant(known)
    assert (token.token_type, token.expires_in) == ("Bearer", 3600)
    principal = asyncio.run(security.authenticate(token.access_token))
    assert (principal.id, principal.username, principal.role) == (known.id, "anna", Role.USER)


def test_the_role_is_the_databases_and_not_the_tokens(known: Credentials) -> None:
    token = jwt.encode(_claims(known, role="admin"), SECRET, "HS256")
    assert not asyncio.run(security.authenticate(token)).is_admin


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": datetime.now(UTC) - timedelta(seconds=1)},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"role": None},
        {"gen": None},
        {"gen": 2},
        {"sub": "anna"},
        {"sub": str(UUID(int=1))},
        {"iat": datetime.now(UTC) + timedelta(hours=1)},
    ],
    # not the values: two of them are moments, and every process must give a test the same name
    ids=["expired", "no exp", "no iat", "no sub", "no role", "no gen", "old gen", "odd sub", "other sub", "not yet"],
)
def test_a_token_with_a_wrong_claim_is_refused(known: Credentials, changed: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated):
        asyncio.run(security.authenticate(jwt.encode(_claims(known, **changed), SECRET, "HS256")))


def test_only_our_signature_and_algorithm_count(known: Credentials) -> None:
    good = jwt.encode(_claims(known), SECRET, "HS256")
    header, body, signature = good.split(".")
    none = jwt.encode(_claims(known), None, "none")
    other = jwt.encode(_claims(known), SECRET[::-1], "HS256")
    longer = jwt.encode(_claims(known), SECRET * 2, "HS512")
    for token in (
        none,
        other,
        longer,
        f"{header}.{body}.",
        f"{header}.{body}.{signature[::-1]}",
        "",
        "a.b",
        "a.b.c",
        "é",
    ):
        with pytest.raises(NotAuthenticated):
            asyncio.run(security.authenticate(token))


def test_hashes_are_argon2id_at_the_floor(known: Credentials) -> None:
    assert known.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_an_old_hash_is_replaced_at_login(known: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    old = msgspec.structs.replace(known, password_hash=PasswordHasher(1, 8 * 1024, 1).hash("12345678"))
    replaced: list[Any] = []
    monkeypatch.setattr(security.accounts, "rehash", lambda *args: replaced.append(args))
    assert not asyncio.run(security.password_fits("wrong", old))
    assert not replaced, "a wrong password replaces nothing"
    assert asyncio.run(security.password_fits("12345678", old))
    ((account_id, before, after),) = replaced
    assert (account_id, before) == (old.id, old.password_hash)
    assert after.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_an_unknown_name_is_hashed_like_a_known_one(known: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr(security, "_verify", lambda hash_, password: checked.append(hash_) or True)
    assert not asyncio.run(security.password_fits("12345678", None)), "even when the password were the one"
    assert asyncio.run(security.password_fits("12345678", known))
    nobody, somebody = checked
    assert nobody.rsplit("$", 2)[0] == somebody.rsplit("$", 2)[0], "the same parameters, so the same time"


def test_hashing_has_a_queue_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "WAITING_AT_MOST", 3)
    gate = threading.Event()

    async def crowd() -> list[Any]:
        tasks = [asyncio.create_task(security._in_hashing_thread(gate.wait)) for _ in range(5)]
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(crowd())
    assert outcomes[:3] == [True] * 3
    assert all(isinstance(outcome, RateLimited) for outcome in outcomes[3:])
    assert asyncio.run(security._in_hashing_thread(gate.wait)) is True, "the count goes down again"


# ---------------------------------------------------------------- the guard


@get("/closed")
async def closed(principal: NamedDependency[Principal]) -> Principal:
    return principal


@get("/open", **security.PUBLIC)
async def open_() -> None: ...


@get("/open-but-curious", **security.PUBLIC)
async def curious(principal: NamedDependency[Principal]) -> Principal:
    return principal


@websocket("/live")
async def live(socket: WebSocket[Any, Any, Any], principal: NamedDependency[Principal]) -> None:
    await socket.accept(subprotocols="bearer" if socket.headers.get("sec-websocket-protocol") else None)
    await socket.send_text(principal.username)
    await socket.close()


@websocket("/gone")
async def gone(socket: WebSocket[Any, Any, Any]) -> None:
    raise problems.closing(NotFound(what="job"))


@pytest.fixture
def client(known: Credentials) -> Iterator[TestClient[Litestar]]:
    app = Litestar(
        [closed, open_, curious, live, gone],
        guards=[security.guard],
        dependencies={"principal": Provide(security.current_principal)},
        exception_handlers={Exception: problems.answer},
        logging_config=None,
    )
    with TestClient(app) as client:
        yield client


def _bearer(known: Credentials) -> dict[str, str]:
    return {"Authorization": f"Bearer {security.grant(known).access_token}"}


def test_a_route_is_closed_unless_it_says_otherwise(client: TestClient[Litestar], known: Credentials) -> None:
    assert client.get("/closed").status_code == 401
    assert client.get("/closed", headers=_bearer(known)).json()["username"] == "anna"
    assert client.get("/open").status_code == 200
    assert client.get("/open-but-curious", headers=_bearer(known)).status_code == 401, "nobody was asked for"


def test_a_websocket_takes_its_token_from_either_place(client: TestClient[Litestar], known: Credentials) -> None:
    with client.websocket_connect("/live", headers=_bearer(known)) as socket:
        assert socket.receive_text() == "anna"
    token = security.grant(known).access_token
    with client.websocket_connect("/live", subprotocols=["bearer", token]) as socket:
        assert socket.accepted_subprotocol == "bearer"
        assert socket.receive_text() == "anna"


@pytest.mark.parametrize("words", [[], ["bearer"], ["bearer", "x.y.z"], ["other", "x.y.z"]])
def test_a_websocket_without_a_good_token_is_closed(client: TestClient[Litestar], words: list[str]) -> None:
    with pytest.raises(WebSocketDisconnect) as closing, client.websocket_connect("/live", subprotocols=words):
        pass
    assert (closing.value.code, closing.value.detail) == (4401, "not_authenticated")


def test_an_error_closes_a_websocket_with_its_status(client: TestClient[Litestar], known: Credentials) -> None:
    with pytest.raises(WebSocketDisconnect) as closing, client.websocket_connect("/gone", headers=_bearer(known)):
        pass
    assert (closing.value.code, closing.value.detail) == (4404, "not_found")


# ---------------------------------------------------------------- rates


@post("/counted", **security.PUBLIC)
async def counted(request: Request[Any, Any, Any]) -> None:
    async with rates.counting(request, Conflict, (rates.Rate("test", 1, 60), "me")):
        pass


def test_with_redis_down_everything_is_let_through(known: Credentials) -> None:
    with TestClient(Litestar([counted], lifespan=[rates.lifespan], logging_config=None)) as client:
        for _ in range(3):
            response = client.post("/counted")
            assert response.status_code == 201
            assert "ratelimit" not in response.headers

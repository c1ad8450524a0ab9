"""Registering and logging in, by oneself and by those who guess."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from storage.accounts import hasher
from tests.account_server import PASSWORD, Call, Server, User, login, new_name, refused


def test_registering_answers_the_account_and_where_it_is(register: Call, server: Server) -> None:
    name = new_name()
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
    name = new_name()
    assert register(username=name, password=PASSWORD, email=f"{name}@example.org").status_code == 201
    assert refused(register(username=name.upper(), password=PASSWORD), 409, "already_taken")["field"] == "username"
    again = register(username=new_name(), password=PASSWORD, email=f"{name}@EXAMPLE.org")
    assert refused(again, 409, "already_taken")["field"] == "email"


def test_of_many_who_want_a_name_at_once_one_gets_it(register: Call) -> None:
    name = new_name()
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
    wrong, unknown = login(server, user.name, "wrong password"), login(server, new_name())
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

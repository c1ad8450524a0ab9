"""What is known and may be changed of an account, by whom."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from storage.accounts import accounts
from tests.account_server import PASSWORD, Server, User, login, new_name, refused


def test_a_user_sees_itself_and_nobody_else(server: Server) -> None:
    one, other = User(server), User(server)
    assert one("GET", f"/users/{one.id}").json()["username"] == one.name
    assert one("GET", f"/users/username/{one.name.upper()}").json()["id"] == one.id
    for method, path in [
        ("GET", f"/users/{other.id}"),
        ("GET", f"/users/{uuid4()}"),
        ("GET", f"/users/username/{other.name}"),
        ("GET", f"/users/username/{new_name()}"),
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
    name = new_name()
    assert _ensure_admin(server, name, PASSWORD) == "True"
    assert login(server, name).status_code == 200
    assert _ensure_admin(server, name.upper(), "another password") == "False"
    assert login(server, name).status_code == 200
    user = User(server)
    assert _ensure_admin(server, user.name, "another password") == "False"
    assert user("GET", "/auth/me").json()["role"] == "user", "a name somebody took is not made an admin"
    assert "ADMIN_PASSWORD" in _ensure_admin(server, new_name(), "short")
    assert "ADMIN_USERNAME" in _ensure_admin(server, "a b", PASSWORD)

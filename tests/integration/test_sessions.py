"""The session cookie: what it opens, to whom, and what another site's page can do with it, which is nothing."""

import secrets
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from domain.accounts import SESSION_COOKIE
from stack.up import Stack, running
from tests.brokers import broker_env
from tests.client import User

PASSWORD = "correct horse battery"
SECONDS = 1234


@pytest.fixture(scope="module")
def house() -> Iterator[Stack]:
    env = {"ACCESS_TOKEN_SECONDS": str(SECONDS), "ML_SERVICE_URL": "http://127.0.0.1:1", **broker_env()}
    env["ML_SERVICE_TOKEN"] = "t" * 16
    with running(only=["api"], env=env) as stack:
        yield stack


class Browser:
    """Signed in with a session; sends what a browser would."""

    def __init__(self, house: Stack, name: str) -> None:
        self.house = house
        self.account = {"username": name, "password": PASSWORD}
        self.http = httpx.Client(base_url=f"{house.url}/api/v1", timeout=30, trust_env=False)

    def login(self, **headers: str) -> httpx.Response:
        return self.http.post("/auth/login", json={**self.account, "session": True}, headers=headers)


@pytest.fixture
def browser(house: Stack) -> Iterator[Browser]:
    browser = Browser(house, f"s-{secrets.token_hex(6)}")
    with browser.http:
        browser.http.post("/auth/register", json=browser.account).raise_for_status()
        yield browser


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    browser.login(**{"Sec-Fetch-Site": "same-origin"}).raise_for_status()
    return browser


def test_the_cookie_is_the_browsers_alone(browser: Browser) -> None:
    answer = browser.login(Origin=browser.house.url)
    assert answer.status_code == 200
    name, _, rest = answer.headers["set-cookie"].partition("=")
    value, *attributes = [part.strip().lower() for part in rest.split(";")]
    assert (name, value) == (SESSION_COOKIE, answer.json()["access_token"].lower())
    assert set(attributes) == {"httponly", "samesite=strict", "path=/api/v1", f"max-age={SECONDS}"}
    assert answer.json()["expires_in"] == SECONDS


def test_a_login_without_it_sets_none(browser: Browser) -> None:
    assert "set-cookie" not in browser.http.post("/auth/login", json=browser.account).headers
    wrong = browser.http.post("/auth/login", json={**browser.account, "password": "wrong", "session": True})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)


def test_it_reads_without_an_authorization_header(signed_in: Browser) -> None:
    assert signed_in.http.get("/auth/me").json()["username"] == signed_in.account["username"]
    with signed_in.http.stream("GET", "/events") as stream:
        assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_an_authorization_header_goes_before_it(signed_in: Browser) -> None:
    assert signed_in.http.get("/auth/me", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    with User(signed_in.house.url) as other:
        token = other.http.headers["Authorization"]
        me = signed_in.http.get("/auth/me", headers={"Authorization": token}).json()["username"]
        assert me != signed_in.account["username"]
        made = signed_in.http.post(
            "/jobs", json={}, headers={"Authorization": token, "Sec-Fetch-Site": "cross-site", "Origin": "http://evil"}
        )
        assert made.status_code == 202, "a program's own token says enough"


SENT_FROM = {
    "a page of this origin": ({"Sec-Fetch-Site": "same-origin"}, 202),
    "an older browser's page of this origin": ({"Origin": "{own}"}, 202),
    "a page of this origin, and both say so": ({"Sec-Fetch-Site": "same-origin", "Origin": "{own}"}, 202),
    "another site": ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, 403),
    "another site that names our origin": ({"Sec-Fetch-Site": "cross-site", "Origin": "{own}"}, 403),
    "another port of this machine": ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
    "an older browser's page of another origin": ({"Origin": "http://127.0.0.1:1"}, 403),
    "the same host by another scheme": ({"Origin": "{tls}"}, 403),
    "a sandboxed frame": ({"Origin": "null"}, 403),
    "an address that was typed": ({"Sec-Fetch-Site": "none"}, 403),
    "nobody says where": ({}, 403),
}


@pytest.mark.parametrize(("headers", "status"), SENT_FROM.values(), ids=SENT_FROM.keys())
def test_what_changes_something_must_come_from_a_page_of_this_origin(
    signed_in: Browser, headers: dict[str, str], status: int
) -> None:
    own = signed_in.house.url
    sent = {name: value.format(own=own, tls=own.replace("http:", "https:")) for name, value in headers.items()}
    answer = signed_in.http.post("/jobs", json={}, headers=sent)
    assert answer.status_code == status, answer.text
    assert len(signed_in.http.get("/jobs").json()["items"]) == (1 if status == 202 else 0)
    if status == 403:
        assert answer.json()["code"] == "cross_site_request"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_every_method_that_changes_something_asks_for_it(signed_in: Browser, method: str) -> None:
    own = {"Sec-Fetch-Site": "same-origin"}
    path = f"/jobs/{signed_in.http.post('/jobs', json={'title': 'before'}, headers=own).json()['id']}"
    body = {"json": {"title": "after"}} if method == "PUT" else {}
    refused = signed_in.http.request(method, path, headers={"Sec-Fetch-Site": "same-site"}, **body)
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site_request")
    assert signed_in.http.get(path).json()["title"] == "before"
    assert signed_in.http.request(method, path, headers=own, **body).is_success


def test_another_sites_page_cannot_sign_its_visitor_in(browser: Browser) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        refused = browser.login(**headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_site_request")
        assert "set-cookie" not in refused.headers
    assert browser.login().status_code == 200, "curl says neither"


def first_message(house: Stack, path: str, cookie: str, origin: str | None) -> str:
    headers = {"Cookie": f"{SESSION_COOKIE}={cookie}"}
    url = f"{house.url.replace('http', 'ws')}/api/v1{path}"
    with connect(url, origin=origin, additional_headers=headers) as socket:
        return str(socket.recv(timeout=5))


def test_a_websocket_is_opened_by_a_page_of_this_origin_only(signed_in: Browser) -> None:
    house, own = signed_in.house, {"Sec-Fetch-Site": "same-origin"}
    path = f"/ws/jobs/{signed_in.http.post('/jobs', json={}, headers=own).json()['id']}"
    cookie = signed_in.http.cookies[SESSION_COOKIE]
    assert first_message(house, path, cookie, house.url).startswith('{"type":"job"')
    for origin in ("http://evil.example", "http://127.0.0.1:1", None):
        with pytest.raises(ConnectionClosed):
            first_message(house, path, cookie, origin)


def test_signing_out_takes_it_away_whether_or_not_there_is_one(signed_in: Browser) -> None:
    for _ in range(2):
        answer = signed_in.http.delete("/auth/session")
        assert answer.status_code == 204
        assert "max-age=0" in answer.headers["set-cookie"].lower()
        assert SESSION_COOKIE not in signed_in.http.cookies
    assert signed_in.http.get("/auth/me").status_code == 401


def test_a_new_password_ends_it(signed_in: Browser) -> None:
    me = signed_in.http.get("/auth/me").json()["id"]
    change = {"password": "wrong donkey charger", "current_password": PASSWORD}
    changed = signed_in.http.put(f"/users/{me}", json=change, headers={"Sec-Fetch-Site": "same-origin"})
    assert changed.status_code == 200
    assert signed_in.http.get("/auth/me").status_code == 401


def test_behind_tls_it_is_sent_over_tls_only(house: Stack) -> None:
    env = {name: house.env[name] for name in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "JWT_SECRET")}
    env |= {name: house.env[name] for name in ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")}
    env |= {"PUBLIC_URL": "https://millrace.example.org", "ML_SERVICE_URL": "http://127.0.0.1:1"}
    with running(only=["api"], migrate=False, env={**env, "ML_SERVICE_TOKEN": "t" * 16}) as behind:
        browser = Browser(behind, "behind-tls")
        with browser.http:
            browser.http.post("/auth/register", json=browser.account).raise_for_status()
            answer = browser.login(**{"Sec-Fetch-Site": "same-origin"})
    assert "secure" in [part.strip().lower() for part in answer.headers["set-cookie"].split(";")]

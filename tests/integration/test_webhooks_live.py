"""Webhooks on a running stack: over HTTP, through deaths and floods, to real receivers."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from standardwebhooks import Webhook as Standard

from stack.network import accepts, free_port
from stack.up import ROOT, Stack, running
from tests.brokers import broker_env
from tests.client import User
from tests.receiver import Receiver, until
from tests.scripted_ml import PROFILES, ScriptedMl

ML_TOKEN = "token-of-the-scripted-ml-service"
TEXT = b"something to look at"


@pytest.fixture(scope="module")
def house() -> Iterator[Stack]:
    with ScriptedMl(ML_TOKEN) as ml:
        env = {
            "ML_SERVICE_URL": ml.url,
            "ML_SERVICE_TOKEN": ML_TOKEN,
            "ML_PROFILES": PROFILES,
            "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "WEBHOOK_PORTS": "any",
            "WEBHOOK_RETRIES": "0.2,0.2,0.2,0.2,0.2,0.2",
            "OWNER_WEBHOOKS": "3",
            **broker_env(),
        }
        with running(only=["api", "worker", "sweeper", "hooks", "beat"], env=env) as stack:
            yield stack


@pytest.fixture
def user(house: Stack) -> Iterator[User]:
    with User(house.url) as user:
        yield user


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def register(user: User, url: str, **more: Any) -> dict[str, Any]:
    answer = user.http.post("/webhooks", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def deliveries(user: User, webhook: dict[str, Any], **query: str) -> list[dict[str, Any]]:
    answer = user.http.get(f"/webhooks/{webhook['id']}/deliveries", params=query).raise_for_status()
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def problem(answer: httpx.Response) -> tuple[int, str, str | None]:
    return answer.status_code, answer.json()["code"], answer.json().get("errors", [{}])[0].get("field")


# ---------------------------------------------------------------- over HTTP


def test_the_secret_is_shown_once(user: User, receiver: Receiver) -> None:
    key = {"Idempotency-Key": "once"}
    body = {"url": receiver.url, "description": "mine"}
    first = user.http.post("/webhooks", json=body, headers=key)
    assert first.status_code == 201
    assert first.headers["cache-control"] == "no-store"
    webhook = first.json()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", webhook["secret"])
    assert webhook["event_types"] == ["job.succeeded", "job.failed", "job.cancelled"]
    assert (webhook["enabled"], webhook["disabled_reason"], webhook["description"]) == (True, None, "mine")
    again = user.http.post("/webhooks", json=body, headers=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == {**webhook, "secret": None}, "kept answers are in the clear"
    assert user.http.get(first.headers["location"].removeprefix("/api/v1")).json() == {
        name: value for name, value in webhook.items() if name != "secret"
    }
    assert [one["id"] for one in user.http.get("/webhooks").json()["items"]] == [webhook["id"]]


def test_an_endpoint_is_changed_and_deleted_and_nobody_elses_to_see(house: Stack, user: User) -> None:
    webhook = register(user, "http://127.0.0.1:9/", event_types=["job.stage", "job.stage"])
    assert webhook["event_types"] == ["job.stage"]
    path = f"/webhooks/{webhook['id']}"
    changed = user.http.put(path, json={"enabled": False, "description": "later"}).json()
    assert (changed["enabled"], changed["disabled_reason"], changed["description"]) == (False, "owner", "later")
    assert problem(user.http.post(f"{path}/test"))[:2] == (409, "conflict")
    changed = user.http.put(path, json={"enabled": True, "description": None}).json()
    assert (changed["enabled"], changed["disabled_reason"], changed["description"]) == (True, None, None)
    delivery = user.http.post(f"{path}/test").json()
    with User(house.url) as other:
        for method, where in (
            *(("GET", path), ("PUT", path), ("DELETE", path), ("POST", f"{path}/rotate-secret")),
            *(("POST", f"{path}/test"), ("GET", f"{path}/deliveries")),
            ("POST", f"{path}/deliveries/{delivery['id']}/replay"),
        ):
            answer = other.http.request(method, where, json={} if method == "PUT" else None)
            assert problem(answer)[:2] == (404, "not_found"), (method, where)
        assert other.http.get("/webhooks").json()["items"] == []
    assert user.http.delete(path).status_code == 204
    assert user.http.get(path).status_code == 404


def test_an_account_has_as_many_as_it_may(user: User) -> None:
    for _ in range(3):
        register(user, "http://127.0.0.1:9/")
    assert problem(user.http.post("/webhooks", json={"url": "http://127.0.0.1:9/"}))[:2] == (409, "too_many_webhooks")
    page = user.http.get("/webhooks", params={"limit": 2}).json()
    rest = user.http.get("/webhooks", params={"limit": 2, "after": page["next"]}).json()
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "http://10.0.0.1/"}, "url_refused"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url_refused"),
        ({"url": "http://[::1]:8000/"}, "url_refused"),
        ({"url": "http://user:password@example.com/"}, "url_refused"),
        ({"url": "file:///etc/passwd"}, "url_refused"),
        ({"url": "http://nowhere.invalid/"}, "host_unknown"),
        ({"url": ""}, "invalid"),
        ({"url": "http://127.0.0.1/", "event_types": []}, "invalid"),
        ({"url": "http://127.0.0.1/", "event_types": ["job.progress"]}, "invalid"),
        ({"url": "http://127.0.0.1/", "secret": "whsec_mine"}, "invalid"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(user: User, body: dict[str, Any], code: str) -> None:
    answer = user.http.post("/webhooks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    webhook = register(user, "http://127.0.0.1:9/")
    changed = {name: value for name, value in body.items() if name != "secret"}
    if changed == body:
        assert user.http.put(f"/webhooks/{webhook['id']}", json=changed).json()["code"] == code
    assert user.http.get(f"/webhooks/{webhook['id']}").json()["url"] == "http://127.0.0.1:9/"


# ---------------------------------------------------------------- the whole way


def test_a_job_is_told_of_within_two_seconds(
    user: User, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = register(user, f"{receiver.url}/ok")
    waited = []
    for number in range(1, 4):
        job_id = user.order("a.txt", TEXT, profile="instant")["id"]
        user.finished(job_id)
        ended = time.monotonic()
        receiver.wait("/ok", number)
        waited.append(receiver.requests[-1].at - ended)
        told = Standard(webhook["secret"]).verify(receiver.requests[-1].body, receiver.requests[-1].headers)
        assert told["data"] == {"job_id": job_id, "status": "succeeded", "kind": "inference"}
    with capsys.disabled():
        print("\n  from the end of a job to its webhook: " + ", ".join(f"{one:.2f} s" for one in waited))  # noqa: T201
    assert min(waited) < 2
    page = user.http.get(f"/webhooks/{webhook['id']}/deliveries", params={"limit": 2}).json()
    rest = user.http.get(f"/webhooks/{webhook['id']}/deliveries", params={"limit": 2, "after": page["next"]}).json()
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)


def test_a_failing_receiver_is_tried_again_and_the_log_says_how(user: User, receiver: Receiver) -> None:
    webhook = register(user, f"{receiver.url}/status")
    receiver.status, receiver.answer = 500, b"not\0 now" + b"!" * 5000
    delivery = user.http.post(f"/webhooks/{webhook['id']}/test").json()
    receiver.wait("/status", 2)
    receiver.status = 200
    until(lambda: deliveries(user, webhook, state="delivered"))
    (logged,) = deliveries(user, webhook)
    assert (logged["id"], logged["type"], logged["job_id"]) == (delivery["id"], "ping", None)
    assert [one["status_code"] for one in logged["attempts"]][-3:] == [500, 500, 200]
    assert logged["attempts"][0]["answer"] == ("not\ufffd now" + "!" * 5000)[:1024]
    assert logged["attempts"][0]["seconds"] < 5
    assert deliveries(user, webhook, state="failed") == []
    replayed = user.http.post(f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}/replay")
    assert (replayed.status_code, replayed.json()["state"]) == (202, "pending")
    receiver.wait("/status", len(logged["attempts"]) + 1)
    assert {one.id for one in receiver.requests} == {delivery["message_id"]}


def test_both_secrets_sign_after_a_change(user: User, receiver: Receiver) -> None:
    webhook = register(user, f"{receiver.url}/ok")
    new = user.http.post(f"/webhooks/{webhook['id']}/rotate-secret").json()["secret"]
    user.http.post(f"/webhooks/{webhook['id']}/test")
    (request,) = receiver.wait("/ok")
    for secret in (webhook["secret"], new):
        assert Standard(secret).verify(request.body, request.headers)["type"] == "ping"


def test_the_death_of_the_sender_in_mid_delivery_repeats_it_with_the_same_id(
    house: Stack, user: User, receiver: Receiver
) -> None:
    webhook = register(user, f"{receiver.url}/holds")
    delivery = user.http.post(f"/webhooks/{webhook['id']}/test").json()
    receiver.wait("/holds")
    house.processes["hooks"].kill()
    receiver.let_go.set()
    house.processes["hooks"].start()
    receiver.wait("/holds", 2)
    until(lambda: deliveries(user, webhook, state="delivered"))
    assert {one.id for one in receiver.requests} == {delivery["message_id"]}
    assert len(deliveries(user, webhook)[0]["attempts"]) == 1, "an attempt that was cut off has not failed"


def test_no_event_is_lost_with_the_broker_and_the_dispatcher(house: Stack, user: User, receiver: Receiver) -> None:
    webhook = register(user, f"{receiver.url}/ok")
    house.processes["sweeper"].kill()
    jobs = [user.order("a.txt", TEXT, profile="instant")["id"] for _ in range(6)]
    cancelled = user.http.post("/jobs", json={"kind": "inference"}).json()["id"]
    user.http.post(f"/jobs/{cancelled}/cancel").raise_for_status()
    for job_id in jobs:
        user.finished(job_id)
    house.processes["hooks"].kill()
    house.processes["sweeper"].start()
    # its messages have been sent, and nobody has taken them
    with psycopg.connect(house.env["DATABASE_URL"], autocommit=True) as connection:
        until(lambda: connection.execute("SELECT 1 FROM webhook_deliveries WHERE claim IS NOT NULL").fetchone())
    with redis.Redis.from_url(house.env["REDIS_URL"]) as server:
        server.flushall()
    house.processes["hooks"].start()
    receiver.wait("/ok", 7, seconds=25)
    secret = Standard(webhook["secret"])
    told = [secret.verify(one.body, one.headers) for one in receiver.requests]
    assert sorted((one["data"]["job_id"], one["type"]) for one in told) == sorted(
        [(job_id, "job.succeeded") for job_id in jobs] + [(cancelled, "job.cancelled")]
    )
    until(lambda: len(deliveries(user, webhook, state="delivered")) == 7)


# ---------------------------------------------------------------- the receiver of the documentation


def test_the_receiver_of_the_documentation_receives(user: User, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/webhooks.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    port = free_port()
    webhook = register(user, f"http://127.0.0.1:{port}/")
    script = tmp_path / "receiver.py"
    script.write_text(code.replace("whsec_...", webhook["secret"]).replace("9000", str(port)))
    output = tmp_path / "output"
    with output.open("wb") as out:
        process = subprocess.Popen([sys.executable, script], stdout=out, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        until(lambda: accepts(port))
        forged = httpx.post(f"http://127.0.0.1:{port}/", content=b"{}", headers={"webhook-id": "x"}, timeout=5)
    except httpx.RemoteProtocolError:
        forged = None
    try:
        assert forged is None, "what is not signed is not answered"
        delivery = user.http.post(f"/webhooks/{webhook['id']}/test").json()
        until(lambda: deliveries(user, webhook, state="delivered"))
        assert output.read_text() == f"{delivery['message_id']} ping {{}}\n"
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)

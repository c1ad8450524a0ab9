"""Streams over real HTTP: all of one's jobs, tickets for browsers, WebSockets, limits."""

import hashlib
import json
import secrets
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from httpx_sse import connect_sse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stack.up import Stack
from tests.client import FINAL, User

TEXT = b"some text\n" * 20


def token(user: User) -> str:
    return user.http.headers["Authorization"].removeprefix("Bearer ")


def follow(user: User, want: int, position: str | None = None, ready: threading.Event | None = None) -> list[Any]:
    """(id, event) of all of the user's jobs until ``want`` of them have ended."""
    told: list[Any] = []
    headers = {"Last-Event-ID": position} if position else {}
    with User(user.url, token(user)) as reader, connect_sse(reader.http, "GET", "/events", headers=headers) as source:
        for sse in source.iter_sse():
            if ready:
                ready.set()
            if sse.data:
                told.append((sse.id, json.loads(sse.data)))
                want -= sse.event in FINAL
                if not want:
                    return told
    return told


def test_the_stream_of_all_jobs_tells_each_event_of_each_job_once(user: User) -> None:
    told: list[Any] = []
    reading = threading.Thread(target=lambda: told.extend(follow(user, 3, "0")))
    reading.start()
    jobs = [user.order("a.txt", TEXT)["id"] for _ in range(3)]
    reading.join(60)
    assert {event["job_id"] for _, event in told} == set(jobs)
    stored = [(place, event) for place, event in told if "seq" in event]
    for job_id in jobs:
        numbers = [event["seq"] for _, event in stored if event["job_id"] == job_id]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers == [event.id for event in user.events(job_id) if event.id]
    middle = len(stored) // 2
    again = follow(user, sum(event["type"] in FINAL for _, event in stored[middle + 1 :]), stored[middle][0])
    assert [event for _, event in again] == [event for _, event in stored[middle + 1 :]]


def test_a_ticket_opens_one_stream_once(user: User) -> None:
    job = user.finished(user.order("a.txt", TEXT)["id"])
    ticket = user.http.post("/events/ticket").json()
    assert ticket["expires_in"] == 60
    for path, params in ((f"/jobs/{job['id']}/events", {}), ("/events", {"after": "0"})):
        ticket = user.http.post("/events/ticket").json()["ticket"]
        url = f"{user.url}/api/v1{path}"
        with httpx.stream("GET", url, params={**params, "ticket": ticket}) as answer:
            assert answer.status_code == 200
            assert next(answer.iter_lines()) == "retry: 1000"
        spent = httpx.get(url, params={**params, "ticket": ticket})
        assert (spent.status_code, spent.json()["code"]) == (401, "not_authenticated")
    assert httpx.get(f"{user.url}/api/v1/jobs", params={"ticket": ticket}).status_code == 401, "streams only"


def test_a_ticket_opens_nothing_of_others(user: User, stack: Stack) -> None:
    job_id = user.order("a.txt", TEXT)["id"]
    with User(stack.url) as stranger:
        ticket = stranger.http.post("/events/ticket").json()["ticket"]
    answer = httpx.get(f"{stack.url}/api/v1/jobs/{job_id}/events", params={"ticket": ticket})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_more_streams_than_one_may_have_are_refused(user: User) -> None:
    many = httpx.Limits(max_connections=200)
    with httpx.Client(headers=user.http.headers, limits=many, trust_env=False) as client:
        fill_up(client, f"{user.url}/api/v1/events")


def fill_up(client: httpx.Client, url: str) -> None:
    streams = [client.send(client.build_request("GET", url), stream=True) for _ in range(100)]
    try:
        assert [answer.status_code for answer in streams] == [200] * 100
        reading = [answer.iter_raw() for answer in streams]
        assert all(next(one).startswith(b"retry:") for one in reading), "they are counted once they run"
        refused = client.get(url)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert int(refused.headers["Retry-After"]) >= 1
        bearer = {"Authorization": client.headers["Authorization"]}
        anything = url.replace("http", "ws", 1).replace("/events", f"/ws/jobs/{uuid4()}")
        with connect(anything, additional_headers=bearer) as socket:
            assert closing(socket) == ([], 4429)
    finally:
        for answer in streams:
            answer.close()


def socket_of(user: User, job_id: str, **params: str) -> Any:
    query = "&".join(f"{name}={value}" for name, value in params.items())
    url = f"{user.url.replace('http', 'ws')}/api/v1/ws/jobs/{job_id}?{query}"
    return connect(url, additional_headers={} if "ticket" in params else {"Authorization": f"Bearer {token(user)}"})


def test_a_websocket_tells_the_job_and_its_events_and_closes_after_the_last(user: User) -> None:
    job_id = user.order("a.txt", TEXT)["id"]
    with socket_of(user, job_id) as socket:
        first, *events = [json.loads(message) for message in socket]
    assert (first["type"], first["data"]["id"]) == ("job", job_id)
    numbers = [event["seq"] for event in events if "seq" in event]
    assert numbers == list(range(1, len(numbers) + 1))
    assert events[-1]["type"] == "succeeded"
    assert socket.close_code == 1000
    with socket_of(user, job_id, after=str(numbers[-2])) as socket:
        first, last = [json.loads(message) for message in socket]
    assert (first["data"]["status"], last["seq"]) == ("succeeded", numbers[-1])


def closing(socket: Any) -> tuple[list[dict[str, Any]], int | None]:
    """What a socket says until it is closed, and how it is."""
    told = []
    with suppress(ConnectionClosed):
        while True:
            told.append(json.loads(socket.recv(timeout=20)))
    return told, socket.close_code


@pytest.mark.parametrize("beyond", [0, 1, 991])
def test_a_websocket_that_comes_back_after_the_end_is_closed_like_one_that_saw_it(user: User, beyond: int) -> None:
    job_id = user.http.post("/jobs", json={"title": "without a file"}).json()["id"]
    assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    last = max(event.id or 0 for event in user.events(job_id))
    with socket_of(user, job_id, after=str(last + beyond)) as socket:
        (first,), code = closing(socket)
    assert (first["type"], first["data"]["status"], code) == ("job", "cancelled", 1000)


def test_a_websocket_from_beyond_the_last_event_hears_the_end(user: User) -> None:
    job_id = user.http.post("/jobs", json={"title": "without a file"}).json()["id"]
    with socket_of(user, job_id, after="999") as socket:
        assert json.loads(socket.recv(timeout=20))["type"] == "job"
        user.http.post(f"/jobs/{job_id}/cancel")
        told, code = closing(socket)
    assert ([event["type"] for event in told], code) == (["cancelled"], 1000)


@pytest.mark.parametrize("path", ["/api/v1/ws/jobs/zzz", "/ws/nothing"])
def test_a_websocket_to_nowhere_is_closed_with_4404(user: User, path: str) -> None:
    with connect(user.url.replace("http", "ws") + path) as socket:
        assert closing(socket) == ([], 4404)
    assert socket.close_reason == "not_found"


def test_streams_of_one_with_a_new_password_end_soon(stack: Stack) -> None:
    name, old = f"user-{secrets.token_hex(6)}", "correct horse battery"
    login = {"username": name, "password": old}
    made = httpx.post(f"{stack.url}/api/v1/auth/register", json=login).json()
    user = User(stack.url, httpx.post(f"{stack.url}/api/v1/auth/login", json=login).json()["access_token"])
    other = User(stack.url)
    job_id = user.http.post("/jobs", json={"title": "without a file"}).json()["id"]
    unused = user.http.post("/events/ticket").json()["ticket"]
    with (
        user.http.stream("GET", f"/jobs/{job_id}/events") as of_job,
        user.http.stream("GET", "/events") as of_all,
        other.http.stream("GET", "/events", timeout=3) as anothers,
        socket_of(user, job_id) as socket,
    ):
        lines = [answer.iter_lines() for answer in (of_job, of_all, anothers)]
        assert [next(one) for one in lines] == ["retry: 1000"] * 3
        change = {"password": "another battery staple", "current_password": old}
        assert user.http.put(f"/users/{made['id']}", json=change).status_code == 200
        for one in lines[:2]:
            assert all(line == "" or line.startswith(("id:", "event:", "data:", ":")) for line in one), "they end"
        assert closing(socket)[1] == 1001
        with pytest.raises(httpx.ReadTimeout):
            for _ in lines[2]:
                pass
    assert user.http.get(f"/jobs/{job_id}/events").status_code == 401
    assert httpx.get(f"{stack.url}/api/v1/events", params={"ticket": unused}).status_code == 401
    other.http.close()
    user.http.close()


def test_a_stream_is_not_kept_on_its_way_and_a_ticket_not_for_long(user: User, stack: Stack) -> None:
    with user.http.stream("GET", "/events") as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Content-Type"].startswith("text/event-stream")
    ticket = user.http.post("/events/ticket").json()["ticket"]
    with redis.Redis.from_url(stack.env["REDIS_URL"]) as connection:
        key = f"millrace:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"
        assert 50_000 < connection.pttl(key) <= 60_000
        connection.pexpire(key, 1)
        while connection.exists(key):
            time.sleep(0.01)
    assert httpx.get(f"{user.url}/api/v1/events", params={"ticket": ticket}).status_code == 401


def test_a_websocket_may_bring_its_token_as_a_subprotocol(user: User) -> None:
    job_id = user.order("a.txt", TEXT)["id"]
    with connect(
        f"{user.url.replace('http', 'ws')}/api/v1/ws/jobs/{job_id}", subprotocols=["bearer", token(user)]
    ) as socket:
        assert socket.subprotocol == "bearer"
        assert json.loads(socket.recv())["type"] == "job"

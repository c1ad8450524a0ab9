"""Streams over real HTTP: all of one's jobs, tickets for browsers, WebSockets, limits."""

import json
import threading
from typing import Any

import httpx
from httpx_sse import connect_sse
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


def test_a_websocket_may_bring_its_token_as_a_subprotocol(user: User) -> None:
    job_id = user.order("a.txt", TEXT)["id"]
    with connect(
        f"{user.url.replace('http', 'ws')}/api/v1/ws/jobs/{job_id}", subprotocols=["bearer", token(user)]
    ) as socket:
        assert socket.subprotocol == "bearer"
        assert json.loads(socket.recv())["type"] == "job"

"""Promise 8: SIGTERM to everything with uploads, streams and steps under way. Nothing fails, no attempt is counted."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.client import SseEvent, User
from tests.faults.conftest import Failpoints, House
from tests.faults.history import ARCHIVE, History
from tests.faults.verdict import judge, settled

APPS = ("api", "beat", "sweeper", "worker")
PROMISED_SECONDS = 30.0


def test_a_deploy_under_load(fire: House, failpoints: Failpoints, client: User) -> None:
    history = History(client, clients=0, resend=True)
    streamed = history.order().job_id
    failpoints.arm("step.running", f"pause:2@1~{streamed}")
    orders = [history.order() for _ in range(8)]
    held = client.http.post("/jobs", json={"title": "held"}).json()["id"]
    failpoints.arm("step.running", f"pause:4@1~{held}")
    client.http.put(f"/jobs/{held}/file", files={"file": ("a.zip", ARCHIVE)}).raise_for_status()
    failpoints.wait("step.running", 20)  # a step is running now

    begun = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        upload = pool.submit(_slow_upload, client, begun)
        stream = pool.submit(_follow, client, held)
        assert begun.wait(10)
        stopping = time.monotonic()
        with ThreadPoolExecutor(len(APPS)) as signals:
            list(signals.map(lambda name: fire.nodes[name].kill("SIGTERM"), APPS))
        took = time.monotonic() - stopping
        for name in APPS:
            fire.nodes[name].start()
        answer, seen = upload.result(60), stream.result(60)
    assert took < PROMISED_SECONDS
    assert answer is not None, "the upload was cut off without an answer"
    assert answer.status_code == 201 or (answer.status_code == 503 and "Retry-After" in answer.headers), answer.text
    assert [event.id for event in seen if event.id] == list(range(1, len([event for event in seen if event.id]) + 1))

    for node in fire.nodes.values():
        node.ready()
    assert settled(fire.stack.env, 60) < 40
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": len(orders) + 1}
    query = "SELECT DISTINCT attempt, outcome FROM job_attempts WHERE job_id = ANY(%s::uuid[])"
    tried = fire.query(query, [held, *(order.job_id for order in history.orders)])
    assert {row["attempt"] for row in tried} == {1}, "no attempt is counted"
    assert {row["outcome"] for row in tried} <= {"done", "interrupted", "lost"}


def _slow_upload(client: User, begun: threading.Event) -> httpx.Response | None:
    """Three seconds of a body; None when the connection was closed instead of an answer."""

    def body() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000
            begun.set()
            time.sleep(0.1)

    with User(client.url, token=client.http.headers["Authorization"].removeprefix("Bearer ")) as user:
        try:
            return user.http.post("/upload?name=slow.txt", content=body(), headers={"Content-Type": "text/plain"})
        except httpx.TransportError:
            return None


def _follow(client: User, job_id: str) -> list[SseEvent]:
    """The job's events, over as many streams as it takes."""
    seen: list[SseEvent] = []
    deadline = time.monotonic() + 60
    with User(client.url, token=client.http.headers["Authorization"].removeprefix("Bearer ")) as user:
        while time.monotonic() < deadline and not (seen and seen[-1].type in ("succeeded", "failed", "cancelled")):
            last = max((event.id or 0 for event in seen), default=0)
            try:
                seen += [event for event in user.events(job_id, after=last) if event.id]
            except (httpx.TransportError, httpx.HTTPStatusError):
                time.sleep(0.1)
    return seen

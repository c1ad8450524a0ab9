"""A server that is being stopped in the middle of uploads, heads without an end, and sockets that are refused."""

import os
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stack.up import Stack, running
from tests.client import User


@pytest.fixture(scope="module")
def house() -> Iterator[Stack]:
    with running(only=["api"]) as stack:
        yield stack


def accepted(pid: int) -> int:
    """Connections of clients; those in the system's queue are not among them."""
    connections = psutil.Process(pid).net_connections("tcp4")
    ours = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port in ours for one in connections)


def test_uploads_that_cannot_end_in_time_are_refused_when_the_server_stops(house: Stack) -> None:
    with User(house.url) as user:
        job = user.http.post("/jobs", json={}).json()["id"]
        began_with = {"Tus-Resumable": "1.0.0", "Upload-Length": str(300 * 2048)}
        resumable = user.http.post("/uploads", headers=began_with).headers["location"].removeprefix("/api/v1")
        sent = [threading.Event() for _ in range(4)]

        def slowly(begun: threading.Event) -> Iterator[bytes]:
            for _ in range(300):
                yield os.urandom(2048)
                begun.set()
                time.sleep(0.1)

        answers: dict[str, httpx.Response] = {}

        def upload(method: str, path: str, begun: threading.Event) -> None:
            headers = {**user.http.headers, "Content-Length": str(300 * 2048), "Content-Type": "application/x-test"}
            if method == "PATCH":
                headers |= {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
                headers["Content-Type"] = "application/offset+octet-stream"
            answers[f"{method} {path}"] = httpx.request(
                method, f"{user.url}/api/v1{path}", content=slowly(begun), headers=headers, timeout=60
            )

        ways = (("POST", "/upload"), ("POST", "/jobs"), ("PUT", f"/jobs/{job}/file"), ("PATCH", resumable))
        uploads = [threading.Thread(target=upload, args=(*way, begun)) for way, begun in zip(ways, sent, strict=True)]
        for thread in uploads:
            thread.start()
        assert all(one.wait(10) for one in sent)
        process = house.processes["api"]
        deadline = time.monotonic() + 10
        while accepted(process.pid or 0) < len(ways) + 1:  # and that of the one who asked for the job
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        process.stop(grace=15)
        took = time.monotonic() - began
        for thread in uploads:
            thread.join(30)
        process.start()
    assert took < 10, (house.data_dir / "logs" / "api.log").read_text()[-3000:]
    log = (house.data_dir / "logs" / "api.log").read_text()[-3000:]
    told = [(answer.status_code, answer.json()["code"]) for answer in answers.values()]
    assert told == [(503, "shutting_down")] * 4, log
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers.values())
    kept = answers.pop(f"PATCH {resumable}").json()["detail"]
    assert "is kept" in kept, "what had come of it"
    assert all("nothing was kept" in answer.json()["detail"] for answer in answers.values())
    ready(house)
    with User(house.url, token=user.http.headers["Authorization"].removeprefix("Bearer ")) as back:
        offset = back.http.head(resumable, headers={"Tus-Resumable": "1.0.0"}).headers["upload-offset"]
        assert int(offset) > 0


def ready(house: Stack) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if httpx.get(f"{house.url}/health/live").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_head_without_an_end_is_cut_off(house: Stack) -> None:
    ready(house)
    url = httpx.URL(house.url)
    with socket.create_connection((str(url.host), url.port or 0), timeout=10) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Big: ")
        reset = False
        try:
            for _ in range(200):  # 12 MiB
                client.sendall(b"a" * 65536)
            answer = client.recv(65536)  # a server that would take more says nothing, and that is a TimeoutError
        except (BrokenPipeError, ConnectionResetError):
            reset, answer = True, b""  # what is still under way when it hangs up may take the answer along
    assert reset or answer.startswith(b"HTTP/1.1 431 ")


def test_ordinary_heads_bodies_and_kept_connections_pass(house: Stack) -> None:
    ready(house)
    with User(house.url) as user:
        for size in (0, 100_000, 3_000_000):
            for _ in range(3):
                assert user.http.post("/upload", files={"file": ("a", os.urandom(size))}).status_code == 201
        assert user.http.get("/files", headers={"X-Long": "a" * 30_000}).status_code == 200


def test_a_socket_that_is_refused_says_why(house: Stack) -> None:
    ready(house)
    with User(house.url) as user, User(house.url) as stranger:
        job = user.http.post("/jobs", json={}).json()["id"]
        url = f"{house.url.replace('http', 'ws')}/api/v1/ws/jobs/{job}"
        own, other = (one.http.headers["Authorization"] for one in (user, stranger))
        cases = [("", {}, 4401), ("?ticket=forged", {}, 4401), ("", {"Authorization": other}, 4404)]
        cases += [("?after=x", {"Authorization": own}, 4422)]
        for query, headers, code in cases:
            with connect(url + query, additional_headers=headers) as refused:
                with pytest.raises(ConnectionClosed):
                    refused.recv(timeout=10)
                assert refused.close_code == code
        with connect(url, subprotocols=["bearer", "wrong"]) as refused:  # type: ignore[list-item]
            with pytest.raises(ConnectionClosed):
                refused.recv(timeout=10)
            assert (refused.close_code, refused.subprotocol) == (4401, "bearer")

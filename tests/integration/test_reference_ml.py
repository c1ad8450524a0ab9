"""The reference ML service as a process of its own, spoken to over real HTTP.

A small server stands for the two neighbours it talks back to: the storage behind presigned URLs, and the callback.
"""

import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from python_calamine import CalamineWorkbook

from stack.ml.analysis import Row
from stack.samples import DISGUISED, make_archive

TOKEN = "a-token-for-the-tests"
SIGNATURE = "X-Amz-Signature=0123456789abcdef"
REPOSITORY = Path(__file__).parents[2]


Seen = tuple[float, str, str, dict[str, str], bytes]  # when, method, path, headers, body


class Neighbours(ThreadingHTTPServer):
    """Serves ``objects`` to GET, keeps what is PUT and POSTed, and answers callbacks with ``answers``, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.objects: dict[str, bytes] = {}
        self.disposition = ""
        self.answers: list[int] = []
        self.seen: list[Seen] = []
        self.released = threading.Event()  # a GET of /stalled waits for it in the middle of the body
        self.url = f"http://127.0.0.1:{self.server_port}"

    def requests(self, method: str, ending: str) -> list[Seen]:
        return [request for request in self.seen if request[1] == method and request[2].endswith(ending)]

    def completions(self) -> list[dict[str, Any]]:
        return [json.loads(body) for *_, body in self.requests("POST", "/completion")]


class Requests(BaseHTTPRequestHandler):
    server: Neighbours

    def _handle(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((time.monotonic(), self.command, path, headers, body))
        answer, status = b"", 200
        if self.command == "GET":
            answer = self.server.objects.get(path, b"")
            status = 302 if path == "/moved" else 200 if answer else 403
        elif path.endswith("/completion") and self.server.answers:
            status = self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Location", "/input")  # means nothing but with 302
        self.send_header("Content-Disposition", self.server.disposition)
        self.end_headers()
        self.wfile.write(answer[:1000])
        if path == "/stalled":
            self.server.released.wait(20)
        self.wfile.write(answer[1000:])

    do_GET = do_PUT = do_POST = _handle  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def neighbours() -> Iterator[Neighbours]:
    server = Neighbours()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Service:
    """A running service: ``client`` speaks to it with the token, ``log`` is where it writes."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def infer(self, neighbours: Neighbours, source: str = "/input", key: str = "", **changes: Any) -> httpx.Response:
        job_uuid = str(changes.get("job_uuid", uuid4()))
        body = {
            **{"job_uuid": job_uuid, "input_object": "inputs/0199", "output_object": "results/0199.xlsx"},
            **{"profile": "default", "threshold": 0.5},
            "input_url": f"{neighbours.url}{source}?{SIGNATURE}",
            "output_url": f"{neighbours.url}/output?{SIGNATURE}",
            "callback_url": f"{neighbours.url}/internal/jobs/{job_uuid}/completion",
            **changes,
        }
        return self.client.post("/infer", json=body, headers={"Idempotency-Key": key or f"{job_uuid}:1"})


@contextmanager
def running(folder: Path, **variables: str) -> Iterator[Service]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "ML_SERVICE_TOKEN": TOKEN, **variables}
    log_path = folder / "ml.log"
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "stack.ml", "--port", str(port)]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        wait(lambda: healthy(client), "the service did not become healthy", seconds=30)
        yield Service(process, client, log_path)
    finally:
        client.close()
        process.kill()
        process.wait()


def healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def wait(reached: Callable[[], Any], otherwise: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("ml")) as started:
        yield started


def completion(neighbours: Neighbours) -> dict[str, Any]:
    wait(neighbours.completions, "no completion came")
    return neighbours.completions()[0]


def rows(neighbours: Neighbours) -> list[dict[str, Any]]:
    ((*_, stored),) = neighbours.requests("PUT", "/output")
    header, *lines = CalamineWorkbook.from_filelike(io.BytesIO(stored)).get_sheet_by_index(0).to_python()
    return [dict(zip(map(str, header), line, strict=True)) for line in lines]


def test_an_archive_goes_in_and_a_workbook_comes_back(service: Service, neighbours: Neighbours) -> None:
    neighbours.objects["/input"] = make_archive()
    job_uuid = str(uuid4())
    answer = service.infer(neighbours, job_uuid=job_uuid)
    assert (answer.status_code, answer.json()) == (202, {"job_uuid": job_uuid, "status": "accepted"})
    told = completion(neighbours)
    ((*_, headers, stored),) = neighbours.requests("PUT", "/output")
    assert headers["content-type"].endswith("spreadsheetml.sheet")
    assert headers["content-length"] == str(len(stored))
    assert "authorization" not in headers  # a presigned URL is all the storage may be told
    named = {"output_object": "results/0199.xlsx", "file_name": "results.xlsx"}
    assert told == {"status": "succeeded", "file_size": len(stored), **named}
    found = rows(neighbours)
    assert tuple(found[0]) == Row.__struct_fields__
    assert {row["path"] for row in found if row["flagged"] is True} == DISGUISED
    ((*_, headers, _),) = neighbours.requests("POST", "/completion")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert service.client.get(f"/jobs/{job_uuid}").json() == {"job_uuid": job_uuid, **told}


def test_a_single_file_keeps_the_name_the_storage_gives_it(service: Service, neighbours: Neighbours) -> None:
    with zipfile.ZipFile(io.BytesIO(make_archive())) as archive:
        neighbours.objects["/input"] = archive.read("media/gradient.png")
    neighbours.disposition = "attachment; filename=\"_.txt\"; filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.txt"
    service.infer(neighbours)
    assert completion(neighbours)["status"] == "succeeded"
    (row,) = rows(neighbours)
    assert (row["path"], row["detected_type"], row["flagged"]) == ("отчёт.txt", "png", True)


def test_progress_rises_five_times_a_second_at_most(service: Service, neighbours: Neighbours) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(200):
            archive.writestr(f"{number}.txt", f"{number} sacks of rye and a barrel of water\n" * 5)
    neighbours.objects["/input"] = buffer.getvalue()
    service.infer(neighbours)
    completion(neighbours)
    reports = neighbours.requests("POST", "/progress")
    bodies = [json.loads(body) for *_, body in reports]
    assert len(bodies) >= 2
    assert [body["progress"] for body in bodies] == sorted(body["progress"] for body in bodies)
    assert bodies[-1]["message"].endswith("of 200 files")
    moments = [at for at, *_ in reports]
    assert all(later - earlier > 0.15 for earlier, later in itertools.pairwise(moments))
    assert moments[-1] < neighbours.requests("POST", "/completion")[0][0]


def test_the_same_key_starts_the_work_once(service: Service, neighbours: Neighbours) -> None:
    neighbours.objects["/input"] = make_archive()
    job_uuid = str(uuid4())
    answers = [service.infer(neighbours, job_uuid=job_uuid) for _ in range(3)]
    completion(neighbours)
    answers.append(service.infer(neighbours, job_uuid=job_uuid))
    assert {(answer.status_code, answer.text) for answer in answers} == {(202, answers[0].text)}
    time.sleep(0.5)
    assert len(neighbours.requests("GET", "/input")) == len(neighbours.completions()) == 1
    assert service.infer(neighbours, key=f"{job_uuid}:1").status_code == 422  # the key, but another job


def test_the_completion_is_tried_again_until_it_is_answered_for_good(service: Service, neighbours: Neighbours) -> None:
    neighbours.objects["/input"] = b"two words\n" * 20
    neighbours.answers = [503, 429, 409]
    service.infer(neighbours)
    wait(lambda: len(neighbours.completions()) == 3, "the completion was not tried again")
    time.sleep(1.0)
    assert len(neighbours.completions()) == 3  # 409 is final
    assert all(told == neighbours.completions()[0] for told in neighbours.completions())


@pytest.mark.parametrize(("source", "status"), [("/absent", 403), ("/moved", 302)])
def test_an_absent_input_fails_the_job(service: Service, neighbours: Neighbours, source: str, status: int) -> None:
    neighbours.objects["/input"] = b"two words\n" * 20
    service.infer(neighbours, source)
    said = f"the input could not be downloaded: the storage answered {status}"
    assert completion(neighbours) == {"status": "failed", "error": said}
    assert not neighbours.requests("GET", "/input")


def test_what_is_not_a_good_request_is_refused(service: Service, neighbours: Neighbours) -> None:
    post = service.client.post
    assert post("/infer", json={}, headers={"Authorization": "Bearer another-token"}).status_code == 401
    assert httpx.post(service.client.base_url.join("/infer"), json={}).status_code == 401
    assert httpx.get(service.client.base_url.join(f"/jobs/{uuid4()}")).status_code == 401
    assert post("/infer", content=b"{", headers={"Idempotency-Key": "1"}).status_code == 400
    assert post("/infer", json={"job_uuid": "1"}, headers={"Idempotency-Key": "1"}).status_code == 400
    assert service.infer(neighbours, input_url="file:///etc/passwd").status_code == 400
    refused = service.infer(neighbours, profile="chest-ct")
    assert (refused.status_code, "default" in refused.text) == (422, True)
    unknown = service.client.get(f"/jobs/{uuid4()}")
    assert (unknown.status_code, unknown.json()["status"]) == (404, "unknown")
    assert not neighbours.seen


def test_no_secret_reaches_the_log(service: Service, neighbours: Neighbours) -> None:
    neighbours.objects["/input"] = b"two words\n" * 20
    job_uuid = str(uuid4())
    service.infer(neighbours, job_uuid=job_uuid)
    said = f"job {job_uuid}: completion succeeded answered 200"
    wait(lambda: said in service.log.read_text(), "the job is not in the log")
    assert not [word for word in (TOKEN, "X-Amz", "Traceback") if word in service.log.read_text()]


def test_a_full_queue_says_so_and_sigterm_ends_it_all(neighbours: Neighbours, tmp_path: Path) -> None:
    neighbours.objects["/stalled"] = make_archive()
    with running(tmp_path, ML_WORKERS="1", ML_QUEUE="1") as service:
        job_uuid = str(uuid4())
        service.infer(neighbours, "/stalled", job_uuid=job_uuid)
        wait(lambda: service.client.get(f"/jobs/{job_uuid}").json()["status"] == "working", "no worker took the job")
        waiting = str(uuid4())
        assert service.infer(neighbours, "/stalled", job_uuid=waiting).status_code == 202
        assert service.client.get(f"/jobs/{waiting}").json()["status"] == "accepted"
        refused = service.infer(neighbours, "/stalled")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=5) == 0
        assert not neighbours.completions()  # a shutdown is not a failure


def test_without_a_token_it_does_not_start() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "ML_SERVICE_TOKEN"}
    command = [sys.executable, "-m", "stack.ml", "--port", "1"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("ML_SERVICE_TOKEN: ")


def test_a_cancelled_job_is_dropped_and_never_called_back(neighbours: Neighbours, tmp_path: Path) -> None:
    neighbours.objects["/stalled"] = neighbours.objects["/input"] = make_archive()
    with running(tmp_path, ML_WORKERS="1") as service:
        at_work, queued, next_one = str(uuid4()), str(uuid4()), str(uuid4())
        service.infer(neighbours, "/stalled", job_uuid=at_work)
        wait(lambda: service.client.get(f"/jobs/{at_work}").json()["status"] == "working", "no worker took the job")
        service.infer(neighbours, job_uuid=queued)
        for job_uuid in (at_work, queued, queued):
            assert service.client.delete(f"/jobs/{job_uuid}").status_code == 204
            assert service.client.get(f"/jobs/{job_uuid}").json()["status"] == "cancelled"
        service.infer(neighbours, job_uuid=next_one)
        neighbours.released.set()
        wait(neighbours.completions, "the worker did not go on to the next job")
        ((_, _, path, *_),) = neighbours.requests("POST", "/completion")
        assert next_one in path
        assert service.client.delete(f"/jobs/{next_one}").status_code == 204, "it has ended, and that is fine"
        assert service.client.delete(f"/jobs/{uuid4()}").status_code == 404
        assert service.client.get(f"/jobs/{next_one}").json()["status"] == "succeeded"
        time.sleep(0.5)
        assert len(neighbours.completions()) == 1

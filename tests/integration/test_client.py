"""The Python client against a real stack: what it returns, what it raises, and what it outlives."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from domain.errors import tree
from domain.results import parse
from millrace import errors
from millrace.client import Client, Event, Job, Status
from stack.up import Stack
from tests.faults.proxy import Faults, Proxy
from tests.scripted_ml import ScriptedMl

PASSWORD = "correct horse battery"


def signed_in(url: str, **options: float) -> Client:
    client = Client(url, token="", **options)
    name = f"user-{secrets.token_hex(6)}"
    client.register(name, PASSWORD)
    client.login(name, PASSWORD)
    return client


@pytest.fixture
def client(scripted: Stack) -> Iterator[Client]:
    with signed_in(scripted.url) as client:
        yield client


@pytest.fixture
def proxy(scripted: Stack) -> Iterator[Proxy]:
    with Proxy(urlsplit(scripted.url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: Proxy) -> Iterator[Client]:
    """A client that sees the API through the proxy."""
    with signed_in(f"http://127.0.0.1:{proxy.port}") as client:
        yield client


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "заметки.txt"
    path.write_bytes(b"some text\n" * 100)
    return path


def held(client: Client, path: Path) -> Job:
    """A job the ML service works on until it is told otherwise."""
    job = client.upload(path, profile="at_it")
    next(event for event in client.events(job) if event.type == "waiting")
    return job


# ---------------------------------------------------------------- the whole way


def test_a_file_is_ordered_followed_and_its_results_are_read(client: Client, text: Path, tmp_path: Path) -> None:
    sent: list[tuple[int, int]] = []
    job = client.upload(
        text,
        title="Заметки",
        profile="completes",
        threshold=0.25,
        priority="high",
        progress=lambda *so_far: sent.append(so_far),
    )
    assert (job.title, job.profile, job.threshold, job.priority) == ("Заметки", "completes", 0.25, "high")
    assert job.file is not None
    assert (job.file.name, job.file.size) == (text.name, 1000)
    assert sent[-1] == (1000, 1000)

    events = list(client.events(job))
    numbered = [event.seq for event in events if event.seq is not None]
    assert numbered == list(range(1, len(numbered) + 1))
    assert events[-1].type == "succeeded"
    assert list(client.events(job, after=len(numbered))) == []

    ended = client.wait(str(job.id))
    assert ended.status is Status.SUCCEEDED
    assert [row["path"] for row in client.results(ended)] == ["a.txt", "b.txt"]
    assert client.result_page(job).summary["flagged"] == 1
    saved = client.download_result(job, tmp_path / "r.xlsx")
    assert parse(saved.read_bytes()).rows[0]["path"] == "a.txt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.xlsx", text.name]


def test_rows_come_over_as_many_pages_as_there_are(
    client: Client, scripted_ml: ScriptedMl, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"".join(b"f%d.txt,0.5,false\n" % number for number in range(2345))
    deliver = scripted_ml.deliver
    monkeypatch.setattr(
        scripted_ml, "deliver", lambda request, content=b"": deliver(request, b"path,score,flagged\n" + lines)
    )
    job = client.wait(client.upload(text, profile="completes"))
    assert [row["path"] for row in client.results(job)] == [f"f{number}.txt" for number in range(2345)]


def test_jobs_come_over_all_pages_newest_first_and_filtered(
    client: Client, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millrace.client.JOBS_ON_A_PAGE", 2)
    ordered = [client.upload(text, title=f"number {number}", profile="instant").id for number in range(5)]
    assert [job.id for job in client.jobs()] == ordered[::-1]
    assert [job.id for job in client.jobs(text="number 3")] == [ordered[3]]
    assert list(client.jobs(status=Status.PENDING)) == []


def test_a_job_is_cancelled_run_again_and_deleted(client: Client, text: Path) -> None:
    job = held(client, text)
    with pytest.raises(errors.Conflict):
        client.retry(job)
    assert client.cancel(job).status is Status.CANCELLED
    assert client.cancel(job).status is Status.CANCELLED
    again = client.retry(job)
    assert again.parent_id == job.id
    client.cancel(again)
    client.delete(again)
    with pytest.raises(errors.NotFound):
        client.delete(again)


# ---------------------------------------------------------------- what it raises


def test_a_problem_is_an_error_of_its_code_with_all_it_says(client: Client, text: Path) -> None:
    with pytest.raises(errors.UnknownProfile) as unknown:
        client.upload(text, profile="x-ray")
    assert (unknown.value.code, unknown.value.status, unknown.value.field) == ("unknown_profile", 422, "profile")
    assert unknown.value.request_id
    assert unknown.value.retryable is False
    assert "x-ray" in str(unknown.value)
    with pytest.raises(errors.NotFound):
        client.job(uuid4())
    job = held(client, text)
    with pytest.raises(errors.JobNotReady) as early:
        list(client.results(job))
    assert early.value.details == {"what": "results", "status": "processing"}
    client.cancel(job)
    with pytest.raises(errors.JobIsFinal):
        client.cancel(client.wait(client.upload(text, profile="instant")))
    big = text.with_name("big.bin")
    with big.open("wb") as file:
        file.truncate(9 * 1024**2)
    with pytest.raises(errors.TooLarge):
        client.upload(big)


def test_who_is_not_signed_in_is_told_so_in_its_language(scripted: Stack) -> None:
    with Client(scripted.url, token="no.token.at-all", language="ru") as nobody:
        with pytest.raises(errors.NotSignedIn, match="Нужен действующий токен"):
            nobody.me()
        with pytest.raises(errors.WrongCredentials, match="Неверное имя"):
            nobody.login("nobody-at-all", "wrong password")


def test_every_code_with_a_class_is_one_the_server_has() -> None:
    assert set(errors.classes()) - {"unavailable"} <= {error.code for error in tree()}
    assert all(error.__doc__ for error in errors.classes().values())


def test_a_server_that_is_not_there_is_unreachable_once_patience_is_at_its_end(proxy: Proxy) -> None:
    proxy.refuse()
    began = time.monotonic()
    with Client(f"http://127.0.0.1:{proxy.port}", token="x", patience=0.5) as client:
        with pytest.raises(errors.Unreachable, match=f"http://127.0.0.1:{proxy.port} cannot be reached"):
            client.me()
        with pytest.raises(errors.Unreachable):
            list(client.events(uuid4()))
    assert 1 < time.monotonic() - began < 5


@contextmanager
def answering(media_type: str, body: str) -> Iterator[str]:
    """The address of something that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_what_answers_but_is_not_millrace_is_said_at_once() -> None:
    with answering("text/html", "<h1>Welcome to the hotel</h1>") as url, Client(url) as client:
        with pytest.raises(errors.Unreachable, match="not Millrace"):
            client.me()
        with pytest.raises(errors.Unreachable, match="not Millrace"):
            list(client.events(uuid4()))


def test_an_event_of_a_later_version_is_passed_over() -> None:
    job_id, at = uuid4(), "2026-01-01T00:00:00Z"
    lines = [
        {"job_id": str(job_id), "type": kind, "at": at, "data": {}, "seq": seq}
        for seq, kind in enumerate(("queued", "admired", "succeeded"), 1)
    ]
    stream = "".join(f"id: {line['seq']}\nevent: {line['type']}\ndata: {json.dumps(line)}\n\n" for line in lines)
    with answering("text/event-stream", stream) as url, Client(url) as client:
        assert [(event.seq, event.type) for event in client.events(job_id)] == [(1, "queued"), (3, "succeeded")]


def test_waiting_ends_when_its_time_is_over(client: Client, text: Path) -> None:
    job = held(client, text)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.wait(job, timeout=0.5)
    assert time.monotonic() - began < 5
    client.cancel(job)


# ---------------------------------------------------------------- what it outlives


def test_an_upload_whose_answer_is_lost_is_one_job(proxied: Client, proxy: Proxy, text: Path) -> None:
    proxy.faults = Faults(lose_answers=1, lose_answer_to=b"POST /api/v1/jobs")
    job = proxied.upload(text, profile="instant")
    assert proxy.lost == 1
    assert [one.id for one in proxied.jobs()] == [job.id]


def test_a_server_that_comes_back_in_time_has_not_been_away(proxied: Client, proxy: Proxy, text: Path) -> None:
    proxy.refuse()
    healing = threading.Timer(0.7, proxy.heal)
    healing.start()
    job = proxied.upload(text, profile="instant")
    healing.join()
    assert [one.id for one in proxied.jobs()] == [job.id]


def test_an_upload_cut_off_by_the_death_of_the_api_is_sent_again_and_is_one_job(
    proxied: Client, proxy: Proxy, scripted: Stack, text: Path
) -> None:
    text.write_bytes(b"some text\n" * 100_000)
    proxy.faults = Faults(bytes_per_second=2_000_000)
    deaths, sizes = scripted.processes["api"].deaths, []

    def progress(sent: int, size: int) -> None:
        sizes.append(sent)
        if sent > size / 2 and not killed.is_set():
            killed.set()
            scripted.processes["api"].kill()

    killed = threading.Event()
    job = proxied.upload(text, profile="instant", progress=progress)
    assert scripted.processes["api"].deaths == deaths + 1
    assert sizes.count(sizes[0]) > 1, "it was sent again"
    assert [one.id for one in proxied.jobs()] == [job.id]
    assert proxied.wait(job).status is Status.SUCCEEDED


def test_a_delete_whose_answer_is_lost_is_done(proxied: Client, proxy: Proxy, text: Path) -> None:
    job = proxied.wait(proxied.upload(text, profile="instant"))
    proxy.faults = Faults(lose_answers=1, lose_answer_to=b"DELETE /api/v1/jobs")
    proxied.delete(job)
    assert proxy.lost == 1
    assert list(proxied.jobs()) == []


def test_events_come_once_and_in_order_over_cut_connections_and_a_killed_server(
    proxied: Client, proxy: Proxy, scripted: Stack, scripted_ml: ScriptedMl, text: Path
) -> None:
    job = proxied.upload(text, profile="at_it")
    seen: list[Event] = []
    finishing: threading.Thread | None = None
    deaths = scripted.processes["api"].deaths
    for event in proxied.events(job, timeout=60):
        if event.seq is None:
            continue
        seen.append(event)
        if event.type == "waiting" and finishing is None:  # the engine asks the service, and waits again
            scripted.processes["api"].kill()
            (request,) = scripted_ml.submissions(str(job.id))
            finishing = threading.Thread(target=_finish, args=(scripted.url, scripted_ml, request))
            finishing.start()
        elif finishing is None:
            proxy.reset()
    assert finishing is not None
    finishing.join()
    assert scripted.processes["api"].deaths == deaths + 1
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].type == "succeeded"
    assert seen == [event for event in proxied.events(job) if event.seq is not None]


def test_a_stream_that_was_silent_for_long_is_taken_up_again(proxy: Proxy, text: Path) -> None:
    with signed_in(f"http://127.0.0.1:{proxy.port}", patience=0.5, outage=0.5) as client:
        job = held(client, text)
        cut = threading.Timer(1.0, proxy.reset)
        ending = threading.Timer(1.3, client.cancel, [job])
        cut.start()
        ending.start()
        assert [event.type for event in client.events(job)][-1] == "cancelled"
        ending.join()


def test_a_name_in_an_old_encoding_is_sent_as_the_text_it_is(client: Client, text: Path) -> None:
    old = text.with_name(os.fsdecode("отчёт.txt".encode("cp1251")))
    text.rename(old)
    job = client.upload(old, profile="instant")
    assert job.title == "отчёт.txt"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://example.org", "http://", "http://a:b", "http://[::1"])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(errors.BadAddress):
        Client(url)


def test_keys_and_tokens_that_cannot_be_sent_are_said_at_once(client: Client, text: Path) -> None:
    for key in ("", "ключ", "two words", "k" * 256):
        with pytest.raises(errors.BadKey):
            client.upload(text, idempotency_key=key)
    with pytest.raises(errors.BadToken):
        Client(client.url, token="токен")
    with Client(client.url, token="no.good\n") as nobody, pytest.raises(errors.NotSignedIn):
        nobody.me()


def _finish(url: str, ml: ScriptedMl, request: dict[str, str]) -> None:
    """As soon as there is somebody to call back."""
    with Client(url, token="") as nobody, pytest.raises(errors.NotSignedIn):
        nobody.me()
    ml.deliver(request)
    ml.complete(request, status="done", output_object=request["output_object"])


# ---------------------------------------------------------------- how heavy it is


def test_its_import_brings_in_nothing_of_the_server() -> None:
    program = (
        "import sys, millrace.client\n"
        "heavy = 'litestar celery kombu redis sqlalchemy psycopg boto3 structlog xlsxwriter api workers storage'\n"
        "print(*(name for name in heavy.split() if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "\n"

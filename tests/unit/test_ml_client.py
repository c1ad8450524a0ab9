"""The ML service's client against what can come out of a socket: each fault has its name, in bounded time."""

import gzip
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from uuid import UUID

import pytest

from domain.errors import MillraceError
from domain.errors.inference import MlProtocolError, MlRejected, MlUnavailable
from domain.inference import Acceptance, Submission
from workers import ml
from workers.transport import seconds_of

JOB = UUID("01990000-0000-7000-8000-000000000001")
SECONDS = 0.8  # of one request in all
MARGIN = 3.0  # of a busy machine; a fault that nobody bounds takes five seconds, or goes on for ever
SUBMISSION = Submission(
    job_uuid=str(JOB),
    input_object="i",
    output_object="o",
    profile="p",
    threshold=0.5,
    input_url="http://x/i",
    output_url="http://x/o",
    callback_url="http://x/c",
)
DONE = json.dumps({"job_uuid": str(JOB), "output_object": f"results/{JOB}/1"}).encode()

Behaviour = Callable[[socket.socket], None]


class RawServer:
    """Reads a request's head and body, then does what ``behaviour`` says with the connection."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if not (request := whole(connection)):
                    return
                self.requests.append(request)
                self.behaviour(connection)
        except OSError:
            return

    def close(self) -> None:
        self._listening.close()


def whole(connection: socket.socket) -> bytes:
    """A request with its body: closing with bytes unread sends a reset, which takes the answer out of the client's
    hands."""
    request = b""
    while piece := connection.recv(65536):
        request += piece
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if end and len(body) >= (int(length[1]) if length else 0):
            return request
    return b""


def answer(status: str = "200 OK", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sends(data: bytes) -> Behaviour:
    return lambda connection: connection.sendall(data)


def drips(data: bytes, at_once: int = 0) -> Behaviour:
    """A byte each 50 ms: far within the limit of every single read."""

    def behaviour(connection: socket.socket) -> None:
        connection.sendall(data[:at_once])
        for byte in data[at_once:]:
            time.sleep(0.05)
            connection.sendall(bytes([byte]))

    return behaviour


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def floods(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


@pytest.fixture
def against(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Behaviour], RawServer]]:
    servers: list[RawServer] = []

    def start(behaviour: Behaviour) -> RawServer:
        servers.append(RawServer(behaviour))
        use(monkeypatch, servers[-1].url)
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    ml.client().close()
    ml.client.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = SimpleNamespace(
        ml_service_url=url, ml_service_token="the-token-of-the-tests", ml_request_seconds=SECONDS
    )
    monkeypatch.setattr(ml, "settings", lambda: settings)
    ml.client.cache_clear()


def submit() -> Acceptance | None:
    return ml.submit(SUBMISSION, idempotency_key=f"{JOB}:1")


FAULTS: dict[str, tuple[Behaviour, type[MillraceError], str]] = {
    "hangs up at once": (lambda connection: None, MlUnavailable, "cut short"),
    "resets": (resets, MlUnavailable, "ReadError|cut short"),
    "says nothing": (lambda connection: connection.recv(1), MlUnavailable, "ReadTimeout"),
    "drips its head": (drips(answer(body=DONE)), MlUnavailable, "ReadTimeout"),
    "drips its body": (drips(answer(body=DONE), len(answer())), MlUnavailable, "ReadTimeout"),
    "is cut short": (sends(answer(body=DONE)[:-5]), MlUnavailable, "cut short"),
    "ends in its head": (sends(b"HTTP/1.1 200 OK\r\nContent-Le"), MlUnavailable, "cut short"),
    "sends a huge head": (sends(answer("200 OK", b"", *["X: " + "y" * 1000] * 300)), MlProtocolError, "no HTTP"),
    "speaks something else": (sends(b"220 smtp.example.org ESMTP\r\n\r\n"), MlProtocolError, "no HTTP"),
    "sends a bomb": (
        sends(answer("200 OK", gzip.compress(bytes(200_000_000)), "Content-Encoding: gzip")),
        MlProtocolError,
        "compressed",
    ),
    "never stops": (floods, MlProtocolError, "longer than"),
    "answers HTML": (sends(answer(body=b"<html>It works!</html>")), MlProtocolError, "200, but"),
    "answers another job": (sends(answer(body=DONE.replace(b"0001", b"0002"))), MlProtocolError, "another job"),
    "answers 204": (sends(answer("204 No Content")), MlProtocolError, "status 204"),
    "redirects": (sends(answer("307 Temporary Redirect", b"", "Location: http://127.0.0.1:1/")), MlRejected, "307"),
    "refuses": (sends(answer("422 Unprocessable Content", b"{}")), MlRejected, "422"),
    "is at its limit": (sends(answer("429 Too Many Requests")), MlUnavailable, "status 429"),
    "is broken": (sends(answer("500 Internal Server Error", b"Traceback: secrets")), MlUnavailable, "status 500"),
    "is behind a dead gateway": (sends(answer("502 Bad Gateway")), MlUnavailable, "status 502"),
}


@pytest.mark.parametrize(("behaviour", "error", "said"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_has_its_name_in_bounded_time(
    against: Callable[[Behaviour], RawServer], behaviour: Behaviour, error: type[MillraceError], said: str
) -> None:
    against(behaviour)
    began = time.monotonic()
    with pytest.raises(error, match=said) as caught:
        submit()
    assert time.monotonic() - began < SECONDS + MARGIN
    assert "secrets" not in str(caught.value)


def test_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    use(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises(MlUnavailable, match="ConnectError"):
        submit()


def test_a_connection_that_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = []
        for _ in range(4):  # fill what the system takes in the server's place
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        use(monkeypatch, f"http://127.0.0.1:{address[1]}")
        began = time.monotonic()
        with pytest.raises(MlUnavailable, match="Timeout"):
            submit()
        assert time.monotonic() - began < SECONDS + MARGIN
        for one in waiting:
            one.close()


def test_a_fault_of_tls_says_which(against: Callable[[Behaviour], RawServer], monkeypatch: pytest.MonkeyPatch) -> None:
    server = against(sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    use(monkeypatch, server.url.replace("http:", "https:"))
    server.requests.clear()
    with pytest.raises(MlUnavailable) as caught:
        submit()
    assert "TLS" in str(caught.value) or "Timeout" in str(caught.value)


def test_a_certificate_nobody_vouches_for_is_named() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    outer = RuntimeError()
    outer.__cause__ = error
    assert ml._reason(outer) == "TLS: certificate has expired"


# ---------------------------------------------------------------- what is fine


def test_an_answer_in_time_is_read_and_nothing_else_is_sent(against: Callable[[Behaviour], RawServer]) -> None:
    server = against(sends(answer("200 OK", DONE, "Set-Cookie: a=b; Path=/")))
    assert submit() == Acceptance(job_uuid=str(JOB), output_object=f"results/{JOB}/1")
    submit()
    for request in server.requests:
        head = request.lower()
        assert b"cookie" not in head
        assert b"accept-encoding: identity" in head
        assert b"authorization: bearer the-token-of-the-tests" in head


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(answer("202 Accepted", b"whatever")),
        sends(answer("202 Accepted", b"x" * 5_000_000)),
        sends(answer("202 Accepted", b"cut short")[:-4]),
        drips(answer("202 Accepted", b"x" * 100), len(answer("202 Accepted")) + 1),
    ],
    ids=["plain", "long", "cut short", "dripping"],
)
def test_accepted_is_accepted_whatever_becomes_of_the_rest(
    against: Callable[[Behaviour], RawServer], behaviour: Behaviour
) -> None:
    against(behaviour)
    began = time.monotonic()
    assert submit() is None
    assert time.monotonic() - began < SECONDS + MARGIN


def test_a_status_is_asked_for(against: Callable[[Behaviour], RawServer]) -> None:
    server = against(sends(answer(body=json.dumps({"job_uuid": str(JOB), "status": "working", "more": 1}).encode())))
    standing = ml.status(JOB)
    assert standing
    assert standing.status == "working"
    assert server.requests[0].startswith(f"GET /jobs/{JOB} HTTP/1.1".encode())


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
def test_a_service_that_cannot_be_asked_or_told(against: Callable[[Behaviour], RawServer], status: str) -> None:
    server = against(sends(answer(status)))
    assert ml.status(JOB) is None
    ml.cancel(JOB)
    assert server.requests[1].startswith(f"DELETE /jobs/{JOB} HTTP/1.1".encode())
    assert len(server.requests) == 2


def test_a_cancellation_is_tried_three_times(
    against: Callable[[Behaviour], RawServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ml, "CANCEL_PAUSE", 0.01)
    server = against(sends(answer("503 Service Unavailable")))
    with pytest.raises(MlUnavailable):
        ml.cancel(JOB)
    assert len(server.requests) == 3


# ---------------------------------------------------------------- Retry-After


def at(**later: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(**later), usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("999999999999999999999999", 3600.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_an_hour(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert seconds_of(at(seconds=90)) == pytest.approx(90, abs=5)
    assert seconds_of(at(seconds=90).replace("GMT", "-0000")) == pytest.approx(90, abs=5)
    assert seconds_of(at(days=400)) == 3600.0
    assert seconds_of(at(days=-1)) == 0.0


def test_retry_after_is_handed_on(against: Callable[[Behaviour], RawServer]) -> None:
    against(sends(answer("503 Service Unavailable", b"", "Retry-After: 12")))
    with pytest.raises(MlUnavailable) as caught:
        submit()
    assert caught.value.retry_after == 12.0

"""A receiver of webhooks that behaves as its path says: a real server, at the edge we do not own.

Every request is kept in ``requests`` as it came. What connects is counted, whether it says anything or not.
"""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]  # by names in lower case
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """``with Receiver() as receiver``: serves ``receiver.url`` from threads."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.at_once: dict[str, int] = {}  # by path, the most there were
        self.status = 200  # of /status
        self.headers: dict[str, str] = {}
        self.answer = b"thank you"
        self.let_go = threading.Event()  # what /holds waits for
        self._now: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://{host}:{self.port}"

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Before the first request."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def of(self, path: str) -> list[Received]:
        return [one for one in list(self.requests) if one.path == path]

    def wait(self, path: str, number: int = 1, seconds: float = 40) -> list[Received]:
        """At least so many requests of a path."""
        until(lambda: len(self.of(path)) >= number, seconds)
        return self.of(path)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                receiver.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._lock:
                    receiver.requests.append(Received(self.path, headers, body))
                    now = receiver._now[self.path] = receiver._now.get(self.path, 0) + 1
                    receiver.at_once[self.path] = max(now, receiver.at_once.get(self.path, 0))
                try:
                    self._answer()
                except OSError:
                    pass  # the other side has heard enough
                finally:
                    with receiver._lock:
                        receiver._now[self.path] -= 1

            def _answer(self) -> None:
                path = self.path
                if path.startswith("/holds"):
                    receiver.let_go.wait(60)
                if path == "/endless":
                    self._head(200, {})
                    while True:
                        self.wfile.write(b"x" * 65536)
                if path == "/drips":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    while True:
                        self.wfile.write(b"X-A: b\r\n")
                        time.sleep(0.05)
                if path == "/no-http":
                    self.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
                    return
                if path == "/leaves":
                    return
                if path.isascii() and path[1:].isdigit():
                    status = int(path[1:])
                else:
                    status = receiver.status if path == "/status" else 200
                self._head(status, {"Content-Length": str(len(receiver.answer)), **receiver.headers})
                self.wfile.write(receiver.answer)

            def _head(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        return Handler


def until(true: Callable[[], Any], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)

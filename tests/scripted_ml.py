"""An ML service that behaves as the job's profile says: a real server speaking the real contract, and its failures.

It stands at the edge we do not own. What it was asked is kept in ``requests``, so that tests can count submissions.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

CSV = b"path,score,flagged\na.txt,0.9,true\nb.txt,0.1,false\n"

PROFILES = (
    "default,instant,completes,completes_early,fails,unreadable,missing,error500,once500,error400,nonsense,"
    "wrong_job,outside,slow,busy,redirect,silent,overloaded,quietly_done,quietly_failed,quietly_elsewhere,at_it,"
    "long_at_it,mute,drips,forgets,forgets_always"
)

Answered = tuple[int, dict[str, str], bytes]


class ScriptedMl:
    """``with ScriptedMl(token) as ml``: serves ``ml.url`` from a thread."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.requests: list[dict[str, Any]] = []
        self.asked: list[str] = []  # jobs whose status was asked for
        self.cancelled: list[str] = []
        self.outage: Answered | None = None  # what everybody gets while it lasts
        self._gone = False
        self._server = self._listening(0)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def _listening(self, port: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        server.daemon_threads = True
        return server

    def start(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "ScriptedMl":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def gone(self) -> Iterator[None]:
        """No such process for the length of the block: connections are refused, those that stand are dropped."""
        self._gone = True
        self.stop()
        try:
            yield
        finally:
            self._gone = False
            self._server = self._listening(self.port)
            self.start()

    def submissions(self, job_id: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["job_uuid"] == job_id]

    def status(self, job_id: str) -> Answered:
        """What a GET of the job's status is answered, by its profile; as a rule there is no such thing."""
        for request in self.submissions(job_id):
            said: Callable[[dict[str, Any]], Answered] | None = getattr(self, f"_said_{request['profile']}", None)
            if said:
                return said(request)
        return 404, {}, b"{}"

    def _say(self, request: dict[str, Any], status: str, **more: Any) -> Answered:
        return 200, {}, json.dumps({"job_uuid": request["job_uuid"], "status": status, **more}).encode()

    def complete(self, request: dict[str, Any], **completion: Any) -> int:
        """Call back as the service does; the status of the answer."""
        answer = httpx.post(
            request["callback_url"], json=completion, headers={"Authorization": f"Bearer {self.token}"}, timeout=20
        )
        return answer.status_code

    def deliver(self, request: dict[str, Any], content: bytes = CSV) -> None:
        httpx.put(request["output_url"], content=content, timeout=20).raise_for_status()

    def answer(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) for a submission, by its profile."""
        behaviour: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]] = getattr(
            self, f"_{request['profile']}"
        )
        return behaviour(request)

    def _later(self, work: Callable[[], object]) -> tuple[int, dict[str, str], bytes]:
        def for_whoever_is_there() -> None:
            with suppress(httpx.TransportError):  # the house may be gone by then; whoever waits for it notices
                work()

        threading.Thread(target=for_whoever_is_there, daemon=True).start()
        return 202, {}, b"{}"

    def _done(self, request: dict[str, Any], **changes: Any) -> tuple[int, dict[str, str], bytes]:
        body = {"job_uuid": request["job_uuid"], "output_object": request["output_object"], **changes}
        return 200, {}, json.dumps(body).encode()

    def _default(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return self._completes(request)

    def _instant(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.deliver(request)
        return self._done(request)

    def _completes(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        def work() -> None:
            time.sleep(0.3)  # after the 202 has been read; the early case has a profile of its own
            self.deliver(request)
            self.complete(request, status="Success", output_object=request["output_object"], file_size=len(CSV))

        return self._later(work)

    def _forgets(self, request: dict[str, Any]) -> Answered:
        """As a service whose queue is in memory, restarted after it had accepted the job."""
        return self._completes(request) if len(self.submissions(request["job_uuid"])) > 1 else (202, {}, b"{}")

    def _said_forgets(self, request: dict[str, Any]) -> Answered:
        return 404, {}, json.dumps({"job_uuid": request["job_uuid"], "status": "unknown"}).encode()

    def _forgets_always(self, request: dict[str, Any]) -> Answered:
        return 202, {}, b"{}"

    _said_forgets_always = _said_forgets

    def _completes_early(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.deliver(request)
        assert self.complete(request, status="done") == 200
        return 202, {}, b"{}"

    def _fails(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return self._later(lambda: self.complete(request, status="error", error="the scanner was upside down"))

    def _unreadable(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        self.deliver(request, b"PK\x03\x04 this is no workbook")
        return self._done(request)

    def _missing(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return self._done(request, file_size=10)

    def _error500(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return 500, {}, b"Traceback: secret internals"

    def _once500(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if len(self.submissions(request["job_uuid"])) == 1:
            return 500, {}, b""
        return self._instant(request)

    def _error400(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return 400, {}, b'{"detail": "no"}'

    def _nonsense(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, b"<html>It works!</html>"

    def _wrong_job(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return self._done(request, job_uuid="00000000-0000-7000-8000-000000000000")

    def _outside(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return self._done(request, output_object=request["input_object"])

    def _slow(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        time.sleep(4)  # longer than ML_REQUEST_SECONDS of the tests
        return 202, {}, b"{}"

    def _busy(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if len(self.submissions(request["job_uuid"])) == 1:
            return 429, {"Retry-After": "2"}, b""
        return self._instant(request)

    def _redirect(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return 307, {"Location": f"{self.url}/elsewhere"}, b""

    def _silent(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return 202, {}, b"{}"

    # what is accepted and never called back; `_said_*` is what such a job's status is

    _quietly_done = _quietly_failed = _quietly_elsewhere = _at_it = _long_at_it = _mute = _silent

    def _said_quietly_done(self, request: dict[str, Any]) -> Answered:
        self.deliver(request)
        named = {"output_object": request["output_object"], "file_size": len(CSV), "file_name": "quiet.csv"}
        return self._say(request, "Succeeded", **named)

    def _said_quietly_failed(self, request: dict[str, Any]) -> Answered:
        return self._say(request, "failed", error="the scanner was upside down")

    def _said_quietly_elsewhere(self, request: dict[str, Any]) -> Answered:
        return self._say(request, "succeeded", output_object=request["input_object"])

    def _said_at_it(self, request: dict[str, Any]) -> Answered:
        return self._say(request, "working")

    def _said_long_at_it(self, request: dict[str, Any]) -> Answered:
        if self.asked.count(request["job_uuid"]) < 3:
            return self._say(request, "accepted")
        return self._said_quietly_done(request)

    def _said_mute(self, request: dict[str, Any]) -> Answered:
        time.sleep(4)
        return self._say(request, "working")

    def _overloaded(self, request: dict[str, Any]) -> Answered:
        """Asks for patience more often than there are attempts, then does it."""
        if len(self.submissions(request["job_uuid"])) <= 7:
            return 429, {"Retry-After": "0"}, b""
        return self._instant(request)

    def _drips(self, request: dict[str, Any]) -> Answered:
        return 202, {"X-Drip": "0.2"}, b"." * 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ml = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                job_id = self.path.rpartition("/")[2]
                ml.asked.append(job_id)
                self._send(ml.outage or ml.status(job_id))

            def do_DELETE(self) -> None:
                ml.cancelled.append(self.path.rpartition("/")[2])
                self._send(ml.outage or (204, {}, b""))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = {
                    **body,
                    "path": self.path,
                    "at": time.monotonic(),
                    "idempotency_key": self.headers["Idempotency-Key"],
                    "authorised": self.headers["Authorization"] == f"Bearer {ml.token}",
                }
                if not ml._gone:
                    ml.requests.append(request)
                self._send(ml.outage or ml.answer(request))

            def _send(self, answered: Answered) -> None:
                if ml._gone:
                    self.close_connection = True
                    return
                status, headers, content = answered
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if pause := float(headers.get("X-Drip", 0)):
                    for byte in content:
                        time.sleep(pause)
                        self.wfile.write(bytes([byte]))
                else:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        return Handler

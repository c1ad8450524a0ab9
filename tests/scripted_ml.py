"""An ML service that behaves as the job's profile says: a real server speaking the real contract, and its failures.

It stands at the edge we do not own. What it was asked is kept in ``requests``, so that tests can count submissions.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

CSV = b"path,score,flagged\na.txt,0.9,true\nb.txt,0.1,false\n"

PROFILES = (
    "default,instant,completes,completes_early,fails,unreadable,missing,error500,once500,error400,nonsense,"
    "wrong_job,outside,slow,busy,redirect,silent"
)


class ScriptedMl:
    """``with ScriptedMl(token) as ml``: serves ``ml.url`` from a thread."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.requests: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "ScriptedMl":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def submissions(self, job_id: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["job_uuid"] == job_id]

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
        threading.Thread(target=work, daemon=True).start()
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

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ml = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = {
                    **body,
                    "path": self.path,
                    "at": time.monotonic(),
                    "idempotency_key": self.headers["Idempotency-Key"],
                    "authorised": self.headers["Authorization"] == f"Bearer {ml.token}",
                }
                ml.requests.append(request)
                status, headers, content = ml.answer(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        return Handler

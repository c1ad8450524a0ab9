"""Everything the service says over HTTP: the input in, the result out, progress and completion to the caller.

No redirect is followed (a presigned URL is for one host) and no proxy is asked (it would be shown the URL's signature).
Messages carry what happened and never a URL.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from stack.ml.endings import CannotInfer, Deadline, Stopped
from stack.ml.spreadsheet import CONTENT_TYPE

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_STORAGE_TRIES, _STORAGE_SECONDS = 4, 20.0
_CALLBACK_TRIES, _CALLBACK_SECONDS = 8, 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_CHUNK = 256 * 1024


class Exchange:
    """One connection pool for all jobs; safe to share between threads."""

    def __init__(self, token: str, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._bearer = {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def download(self, url: str, into: IO[bytes], limit: int, deadline: Deadline) -> httpx.Headers:
        """The object's bytes as stored, streamed ``into`` a file, and the answer's headers.

        Raises:
            CannotInfer: the storage refuses or cannot be reached, or the object is larger than ``limit`` bytes.
            Stopped: the service is shutting down.
        """
        headers = httpx.Headers()

        def attempt() -> int:
            into.seek(0)
            into.truncate()
            with self._client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.status_code == httpx.codes.OK:
                    headers.update(answer.headers)
                    self._receive(answer, into, limit, deadline)
                return answer.status_code

        status = self._retried(attempt, "the input could not be downloaded", _STORAGE_TRIES, _STORAGE_SECONDS)
        if status != httpx.codes.OK:
            raise CannotInfer(f"the input could not be downloaded: the storage answered {status}")
        return headers

    def _receive(self, answer: httpx.Response, into: IO[bytes], limit: int, deadline: Deadline) -> None:
        too_large = CannotInfer(f"the input is larger than {limit} bytes")
        if int(answer.headers.get("Content-Length", 0)) > limit:
            raise too_large
        for chunk in answer.iter_raw(_CHUNK):
            self._check(deadline)
            if into.tell() + len(chunk) > limit:
                raise too_large
            into.write(chunk)

    def _check(self, deadline: Deadline) -> None:
        if self._stopping.is_set():
            raise Stopped
        deadline.check()

    def upload(self, url: str, result: bytes) -> None:
        """PUTs the result. Writing it twice is harmless, so a lost answer is simply tried again.

        Raises:
            CannotInfer: the storage refuses or cannot be reached.
            Stopped: the service is shutting down.
        """
        headers = {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(result))}
        status = self._retried(
            lambda: self._client.put(url, content=result, headers=headers).status_code,
            "the result could not be stored",
            _STORAGE_TRIES,
            _STORAGE_SECONDS,
        )
        if not httpx.codes.is_success(status):
            raise CannotInfer(f"the result could not be stored: the storage answered {status}")

    def complete(self, url: str, completion: dict[str, Any]) -> int:
        """POSTs the completion until it is answered for good, and returns that status; 4xx but 429 is for good.

        Raises:
            CannotInfer: it could not be delivered within the tries there are.
            Stopped: the service is shutting down.
        """
        return self._retried(
            lambda: self._client.post(url, json=completion, headers=self._bearer).status_code,
            "the completion could not be delivered",
            _CALLBACK_TRIES,
            _CALLBACK_SECONDS,
        )

    def progress(self, url: str, percent: int, message: str) -> int:
        """One report, tried once. Raises httpx.HTTPError."""
        report = {"progress": percent, "message": message}
        return self._client.post(url, json=report, headers=self._bearer, timeout=2.0).status_code

    def _retried(self, attempt: Callable[[], int], failure: str, tries: int, seconds: float) -> int:
        """The first status that is not transient. Exponential backoff with full jitter."""
        until = time.monotonic() + seconds
        for tried in range(1, tries + 1):
            if self._stopping.is_set():
                raise Stopped
            try:
                status = attempt()
                if status != httpx.codes.TOO_MANY_REQUESTS and not httpx.codes.is_server_error(status):
                    return status
                reason = f"the last answer was {status}"
            except httpx.TransportError as error:
                reason = type(error).__name__
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise CannotInfer(f"{failure}: {type(error).__name__}") from None
            pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tried - 1)))  # noqa: S311 - not a secret
            if tried == tries or time.monotonic() + pause > until:
                break
            self._stopping.wait(pause)
        raise CannotInfer(f"{failure} in {tried} tries: {reason}")


def progress_url(callback_url: str) -> str | None:
    """The callback URL with its last segment ``completion`` replaced by ``progress``; None when it ends otherwise."""
    parts = urlsplit(callback_url)
    path, _, last = parts.path.rpartition("/")
    return urlunsplit(parts._replace(path=f"{path}/progress")) if last == "completion" else None

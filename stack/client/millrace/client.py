"""The client: jobs ordered with a file, followed live, and their results, over HTTP.

    from millrace.client import Client

    with Client("http://127.0.0.1:8000") as client:
        client.login("anna", "correct horse battery")
        job = client.wait(client.upload("scans.zip"))
        for row in client.results(job):
            print(row["path"], row["flagged"])

Every method may raise what is in ``millrace.errors``. A request is tried again for ``patience`` seconds while the
server is away or says 503, where that can do nothing twice: what creates carries an Idempotency-Key.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

from domain.accounts import Account, TokenGrant
from domain.files import decode_text
from domain.jobs import Event, Inspection, Job, JobPage, Priority, Status
from millrace.errors import BadKey, JobIsFinal, NotFound
from millrace.following import follow, follow_all
from millrace.reading import Counted, Progress, media_type
from millrace.tokens import kept_token
from millrace.wire import Wire

__all__ = ["Account", "Client", "Event", "Inspection", "Job", "Priority", "ResultPage", "Status", "TokenGrant"]

DEFAULT_URL = "http://127.0.0.1:8000"
JOBS_ON_A_PAGE, ROWS_ON_A_PAGE = 100, 1000  # the most the server gives


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in the file's order. Each has every one of ``columns`` (None where blank) and `extra` for unknown columns;
    ``next`` is the following page's ``after``, None after the last."""

    parsed_at: datetime
    columns: list[str]
    summary: dict[str, Any]  # counts over all rows
    warnings: list[dict[str, Any]]  # cells that could not be read, the first thousand
    warnings_total: int
    rows: list[dict[str, Any]]
    next: int | None


class Client:
    """Safe to be used by several threads. A job is named by itself, its id, or the id as text."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience: float = 20.0,
        outage: float = 300.0,
        language: str = "en",
    ) -> None:
        """``url`` is the server's address without /api/v1, else ``MILLRACE_URL``; ``token``, else ``MILLRACE_TOKEN``,
        else what `millrace login` kept for this address. ``patience`` (seconds) is for requests, ``outage`` for streams
        that were open before; ``language`` is that of the server's sentences (`en`, `ru`). Raises BadAddress."""
        url = url or os.environ.get("MILLRACE_URL") or DEFAULT_URL
        self._outage = outage
        self._wire = Wire(url, None, patience=patience, language=language)
        self.url = self._wire.url
        self._wire.sign(token or os.environ.get("MILLRACE_TOKEN") or kept_token(self.url))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    # ---------------------------------------------------------------- who

    def register(self, username: str, password: str, email: str | None = None) -> Account:
        """Make an account. Raises AlreadyTaken."""
        body = {"username": username, "password": password, "email": email}
        headers = _keyed(None)
        return self._wire.read("POST", "/auth/register", Account, again=True, headers=headers, json=body)

    def login(self, username: str, password: str) -> TokenGrant:
        """Sign in; from now on every request is made with the token. Raises WrongCredentials."""
        body = {"username": username, "password": password}
        granted = self._wire.read("POST", "/auth/login", TokenGrant, again=True, json=body)
        self._wire.sign(granted.access_token)
        return granted

    def me(self) -> Account:
        """The account the token belongs to."""
        return self._wire.read("GET", "/auth/me", Account)

    # ---------------------------------------------------------------- jobs

    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        description: str | None = None,
        kind: str | None = None,
        profile: str | None = None,
        threshold: float | None = None,
        priority: Priority | str | None = None,
        inspection: Inspection | str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Job:
        """Order a job on a file, which is read from disk as it is sent.

        ``inspection="deep"`` has every header within an archive compared with its directory.
        ``progress(sent, size)`` is called as the bytes go out. ``idempotency_key`` (None: a new one) makes the same
        call, made again after a lost answer or a crash, answer with the first job.

        Raises:
            OSError: the file cannot be read.
            BadKey: ``idempotency_key`` is none.
            FileChanged: it changed its size meanwhile.
        """
        path = Path(path)
        name = decode_text(os.fsencode(path.name))  # a file's name may be in another encoding than this system's
        given = {"title": title, "description": description, "kind": kind, "profile": profile}
        given |= {"threshold": None if threshold is None else repr(threshold), "priority": priority and str(priority)}
        given["inspection"] = inspection and str(inspection)
        fields = {name: value for name, value in given.items() if value is not None}
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size

            def body() -> dict[str, Any]:
                part = Counted(file, size, progress)
                return {"data": fields, "files": {"file": (name, part, media_type(path))}}

            headers = _keyed(idempotency_key)
            response = self._wire.send("POST", "/jobs", again=True, headers=headers, body=body)
        return self._wire.decoded(response, Job)

    def job(self, job: Job | UUID | str) -> Job:
        """The job as it is now."""
        return self._wire.read("GET", f"/jobs/{_id(job)}", Job)

    def jobs(
        self, *, status: Status | str | None = None, kind: str | None = None, text: str | None = None
    ) -> Iterator[Job]:
        """Your jobs, newest first, over all pages; ``text`` is a part of title or description."""
        given = {"status": status and str(status), "kind": kind, "text": text}
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        asked["limit"] = JOBS_ON_A_PAGE
        while True:
            page = self._wire.read("GET", "/jobs", JobPage, params=asked)
            yield from page.items
            if page.next is None:
                return
            asked["after"] = str(page.next)

    def cancel(self, job: Job | UUID | str) -> Job:
        """Ask a job to end; one that runs leaves at its next checkpoint. A cancelled one is answered as it is.

        Raises:
            JobIsFinal: it has succeeded or failed.
        """
        try:
            return self._wire.read("POST", f"/jobs/{_id(job)}/cancel", Job, again=True)
        except JobIsFinal:
            ended = self.job(job)
            if ended.status is Status.CANCELLED:
                return ended
            raise

    def retry(self, job: Job | UUID | str, *, idempotency_key: str | None = None) -> Job:
        """Run an ended job again: a new job on the same file, with ``parent_id``. Raises Conflict before its end."""
        headers = _keyed(idempotency_key)
        return self._wire.read("POST", f"/jobs/{_id(job)}/retry", Job, again=True, headers=headers)

    def delete(self, job: Job | UUID | str) -> None:
        """Delete a job with its results and the file that came with it."""
        try:
            self._wire.send("DELETE", f"/jobs/{_id(job)}")
        except NotFound as error:
            if not error.resent:  # else it is this very call that has deleted it
                raise

    # ---------------------------------------------------------------- live

    def events(self, job: Job | UUID | str, *, after: int = 0, timeout: float | None = None) -> Iterator[Event]:
        """What happens to a job, from its beginning (or after event number ``after``) to its terminal event.

        Cut off, it comes back by itself: each numbered event comes once and in order. `progress` events have no ``seq``
        and are live only. Raises TimeoutError after ``timeout`` seconds.
        """
        return follow(self._wire, _id(job), after, timeout, self._outage)

    def all_events(self, *, after: str | None = None, timeout: float | None = None) -> Iterator[Event]:
        """What happens to all of your jobs, from now on (``after="0"``: from the first event there is), without end.

        Cut off, it comes back by itself: of each job every numbered event comes once and in order. Raises TimeoutError
        after ``timeout`` seconds.
        """
        return follow_all(self._wire, after, timeout, self._outage)

    def wait(self, job: Job | UUID | str, *, timeout: float | None = None) -> Job:
        """The job once it has ended, however: look at its ``status`` and ``error``. Raises TimeoutError."""
        for _ in self.events(job, timeout=timeout):
            pass
        return self.job(job)

    # ---------------------------------------------------------------- results

    def results(self, job: Job | UUID | str) -> Iterator[dict[str, Any]]:
        """Every row of the parsed results, fetched a page at a time. Raises JobNotReady."""
        after: int | None = 0
        while after is not None:
            page = self.result_page(job, after=after)
            yield from page.rows
            after = page.next

    def result_page(self, job: Job | UUID | str, *, after: int = 0, limit: int = ROWS_ON_A_PAGE) -> ResultPage:
        """One page of them, with the columns and the summary of all. Raises JobNotReady."""
        asked = {"after": after, "limit": limit}
        return self._wire.read("GET", f"/jobs/{_id(job)}/results", ResultPage, params=asked)

    def download_result(self, job: Job | UUID | str, path: str | os.PathLike[str]) -> Path:
        """Save the result as an XLSX file at ``path``, which appears once it is whole. Raises JobNotReady, OSError."""
        return self._save(f"/jobs/{_id(job)}/results.xlsx", Path(path))

    def download_file(self, job: Job | UUID | str, path: str | os.PathLike[str]) -> Path:
        """Save the file the job works on at ``path``, which appears once it is whole. Raises JobNotReady, OSError."""
        return self._save(f"/jobs/{_id(job)}/file", Path(path))

    def _save(self, source: str, path: Path) -> Path:
        partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")

        def write(chunks: Iterator[bytes]) -> None:
            with partial.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)

        try:
            self._wire.save(source, write)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path


def _keyed(key: str | None) -> dict[str, str]:
    """Raises BadKey."""
    key = str(uuid4()) if key is None else key
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable() and " " not in key):
        raise BadKey("an Idempotency-Key is 1 to 255 visible ASCII characters")
    return {"Idempotency-Key": key}


def _id(job: Job | UUID | str) -> UUID:
    """Raises ValueError: a text that is no id."""
    if isinstance(job, Job):
        return job.id
    return job if isinstance(job, UUID) else UUID(job)

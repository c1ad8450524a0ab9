"""An API client as a user would write it: real HTTP, real server-sent events."""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import connect_sse

FINAL = ("succeeded", "failed", "cancelled")
ADMIN = {"username": "root.admin", "password": "an admin of the tests"}
WITH_ADMIN = {f"ADMIN_{name.upper()}": value for name, value in ADMIN.items()}  # settings of a stack that has one


@dataclass(frozen=True)
class SseEvent:
    id: int | None  # None for live-only progress
    type: str
    body: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.body["data"]
        return data


class User:
    """A registered account with its token; ``http`` speaks to /api/v1."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.http = httpx.Client(base_url=f"{url}/api/v1", timeout=30, trust_env=False)
        if token is None:
            account = {"username": f"user-{secrets.token_hex(6)}", "password": secrets.token_urlsafe(12)}
            self.http.post("/auth/register", json=account).raise_for_status()
            token = self.http.post("/auth/login", json=account).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    @classmethod
    def admin(cls, url: str) -> "User":
        """The admin of a stack with the settings ``WITH_ADMIN``."""
        answer = httpx.post(f"{url}/api/v1/auth/login", json=ADMIN, timeout=30, trust_env=False)
        return cls(url, answer.raise_for_status().json()["access_token"])

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def order(self, name: str, content: bytes, **fields: str) -> dict[str, Any]:
        """POST /jobs with a file; the job as answered."""
        answer = self.http.post("/jobs", files={"file": (name, content)}, data=fields)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.http.get(f"/jobs/{job_id}").raise_for_status().json()
        return job

    def events(self, job_id: str, after: int = 0) -> Iterator[SseEvent]:
        """The job's stream until the server ends it."""
        headers = {"Last-Event-ID": str(after)} if after else {}
        with connect_sse(self.http, "GET", f"/jobs/{job_id}/events", headers=headers) as source:
            for sse in source.iter_sse():
                if not sse.data:
                    continue
                body = json.loads(sse.data)
                # httpx-sse repeats the last id on events that have none, as the standard says
                yield SseEvent(body.get("seq"), sse.event, body)

    def finished(self, job_id: str, seconds: float = 60) -> dict[str, Any]:
        """The job once it is final, awaited on its stream."""
        deadline = time.monotonic() + seconds
        for event in self.events(job_id):
            if event.type in FINAL:
                break
            assert time.monotonic() < deadline, f"not finished after {seconds} s: {event}"
        job = self.job(job_id)
        assert job["status"] in FINAL, job
        return job

"""Jobs in other states than the documented one, which has succeeded: what differs in them; and a job's events."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from domain.errors.archives import ArchiveEncrypted
from domain.jobs import Event, EventType, Status

_error = ArchiveEncrypted(entry="scans/0001.dcm")

QUEUED: dict[str, Any] = {
    "status": Status.QUEUED,
    "stage": None,
    "progress": 0,
    "message": None,
    "result": None,
    "updated_at": "2025-09-15T11:41:51.568627Z",
    "started_at": None,
    "completed_at": None,
    "results_parsed_at": None,
}
PENDING: dict[str, Any] = {**QUEUED, "status": Status.PENDING, "file": None, "queued_at": None}
FAILED: dict[str, Any] = {
    "status": Status.FAILED,
    "stage": "inspect",
    "progress": 0,
    "message": None,
    "result": None,
    "error": {"code": _error.code, "message": str(_error), "stage": "inspect", "retryable": _error.retryable},
    "results_parsed_at": None,
}
PROCESSING: dict[str, Any] = {
    "status": Status.PROCESSING,
    "stage": "waiting",
    "progress": 56,
    "eta_seconds": 12,
    "message": None,
    "completed_at": None,
    "results_parsed_at": None,
}
CANCELLED: dict[str, Any] = {**FAILED, "status": Status.CANCELLED, "stage": "submit", "progress": 10, "error": None}
PARENT_ID = "01994d2a-0c3e-7d55-90b1-6fae27c4d831"


def _event(seq: int | None, kind: EventType, microsecond: int, **data: Any) -> Event:
    at = datetime(2025, 9, 15, 11, 41, 51, microsecond, tzinfo=UTC)
    return Event(job_id=UUID("01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"), type=kind, at=at, data=data, seq=seq)


EVENTS = (
    _event(1, EventType.QUEUED, 568627, status="queued", attempt=1, progress=0),
    _event(2, EventType.STAGE, 694129, stage="inspect", status="processing", attempt=1, progress=0),
    _event(3, EventType.STAGE, 804921, stage="submit", status="processing", attempt=1, progress=10),
    _event(4, EventType.WAITING, 841594, stage="waiting", status="processing", attempt=1, progress=10),
    _event(
        None,
        EventType.PROGRESS,
        902311,
        status="processing",
        stage="waiting",
        progress=38,
        message="2 of 3 files",
        eta_seconds=12,
    ),
)

"""What a job is: its states, who may move it between them, and the job as a client sees it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec

from domain.files import File


class Status(StrEnum):
    """The states of a job. ``TRANSITIONS`` says which moves exist; a trigger in the database holds the same table."""

    PENDING = "pending"
    """Created by POST /jobs without a file. Attaching one moves it to `queued`; the sweep fails it when none came."""
    QUEUED = "queued"
    """Its file is complete and its first step waits for a worker. The first claim moves it to `processing`."""
    PROCESSING = "processing"
    """A step runs, waits its turn or waits for the ML service; `stage` says which. The engine moves it to its end."""
    SUCCEEDED = "succeeded"
    """The last step is committed. Final."""
    FAILED = "failed"
    """A step failed for good, or a deadline passed; `error` names it. Final: a rerun is a new job with `parent_id`."""
    CANCELLED = "cancelled"
    """Its owner asked for it and no step's effect came after. Final."""


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=255, description="Defaults to the file's name")]
Description = Annotated[str, msgspec.Meta(max_length=10_000)]
Threshold = Annotated[float, msgspec.Meta(ge=0, le=1, description="From 0 to 1: above it, something counts as flagged")]


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; ``code`` is stable and listed in docs/errors.md."""

    code: str
    message: str
    stage: str | None
    retryable: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its owner sees it. Times are RFC 3339 UTC; progress is 0-100 and never falls."""

    id: UUID
    kind: str
    title: str
    description: str | None
    status: Status
    stage: str | None
    progress: int
    message: str | None
    file: File | None
    result: Result | None
    error: JobError | None
    parent_id: UUID | None
    profile: str | None
    threshold: float | None
    attempts: int
    created_at: datetime
    updated_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    results_parsed_at: datetime | None


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of jobs, newest first; pass ``next`` as ``after`` for the following one, null after the last."""

    items: list[Job]
    next: UUID | None


class JobOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job ordered as JSON. Without ``filename`` the job waits in `pending` for its file."""

    kind: str = "inference"
    filename: Annotated[str, msgspec.Meta(max_length=100, description="An uploaded file's stored name")] | None = None
    title: Title | None = None
    description: Description | None = None
    profile: Annotated[str, msgspec.Meta(max_length=100, examples=["default"])] | None = None
    threshold: Threshold | None = None


class JobChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be changed of a job at any time."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType | None = msgspec.UNSET


class EventType(StrEnum):
    CREATED = "created"
    QUEUED = "queued"
    STAGE = "stage"  # a step has begun
    PROGRESS = "progress"  # live only: not stored, has no seq
    HANDED_OVER = "handed_over"  # a step is done and the next one waits for a worker
    WAITING = "waiting"  # the work is with somebody else, no worker is held
    RESUMED = "resumed"  # what it waited for has come
    RETRYING = "retrying"  # an attempt failed for a passing reason
    INTERRUPTED = "interrupted"  # the worker stopped or died; nothing failed
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED})


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a job's record, as it is stored, published and streamed. ``seq`` starts at 1 and has no gaps."""

    job_id: UUID
    type: EventType
    at: datetime
    data: dict[str, Any]
    seq: int | None = None

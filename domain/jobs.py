"""What a job is: its states, who may move it between them, and the job as a client sees it."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.errors.requests import Invalid
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

Title = Annotated[
    str,
    Meta(min_length=1, max_length=255, description="Defaults to the file's name", examples=["Scans of September"]),
]
Description = Annotated[str, Meta(max_length=10_000, examples=["Second series, with contrast"])]
Threshold = Annotated[
    float, Meta(ge=0, le=1, description="From 0 to 1: above it, something counts as flagged", examples=[0.5])
]
Time = Annotated[datetime, Meta(tz=True)]
JobId = Annotated[UUID, Meta(examples=["01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"])]


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed; ``code`` is stable and listed at /docs/errors."""

    code: Annotated[str, Meta(examples=["archive_encrypted"])]
    message: Annotated[str, Meta(examples=["The archive holds encrypted entries (first: 'scans/0001.dcm')."])]
    stage: Annotated[str | None, Meta(description="The step that failed", examples=["inspect"])]
    retryable: Annotated[bool, Meta(description="Whether the same job, ordered again, could succeed", examples=[False])]


class Priority(StrEnum):
    """Which of its owner's waiting jobs is begun first, and, approximately, which message a worker takes first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Inspection(StrEnum):
    """How closely the archive of a job is looked at (docs/archives.md)."""

    STANDARD = "standard"
    """By its directory, and by the members' own headers as far as they went by while it was uploaded."""
    DEEP = "deep"
    """Every member's own header as well: read from the storage where it did not go by."""


RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class AttemptError(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed."""

    code: Annotated[str, Meta(examples=["ml_unavailable"])]
    message: Annotated[str, Meta(examples=["The ML service could not be reached or is overloaded (503)."])]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result file, as the ML service named it."""

    name: Annotated[str, Meta(examples=["results.xlsx"])]
    size: Annotated[int, Meta(description="Bytes", examples=[5414])]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its owner sees it. Times are RFC 3339 UTC; progress is 0-100 and never falls."""

    id: JobId
    kind: Annotated[str, Meta(description="The pipeline it runs", examples=["inference"])]
    title: Annotated[str, Meta(examples=["Scans of September"])]
    description: Annotated[str | None, Meta(examples=[None])]
    status: Annotated[
        Status,
        Meta(
            description="`pending` waits for its file, `queued` for a worker, `processing` is at work (see `stage`); "
            "`succeeded`, `failed` (see `error`) and `cancelled` are final",
            examples=["succeeded"],
        ),
    ]
    stage: Annotated[str | None, Meta(description="The step it is at, or ended with", examples=["finish"])]
    progress: Annotated[int, Meta(ge=0, le=100, description="Percent of the whole", examples=[100])]
    eta_seconds: Annotated[
        int | None,
        Meta(
            description="Until the present stage is likely over, by its pace so far; null where that cannot be known",
            examples=[None],
        ),
    ]
    message: Annotated[str | None, Meta(description="What the step last said", examples=["3 rows, 1 flagged"])]
    file: Annotated[File | None, Meta(description="What it works on; null while `pending`")]
    result: Annotated[Result | None, Meta(description="Null until there is one")]
    error: Annotated[JobError | None, Meta(description="Null unless it `failed`", examples=[None])]
    parent_id: Annotated[UUID | None, Meta(description="The job this one is a rerun of", examples=[None])]
    profile: Annotated[str | None, Meta(description="How the ML service is to work", examples=["default"])]
    threshold: Annotated[float | None, Meta(description="Above it, something counts as flagged", examples=[0.5])]
    priority: Annotated[
        Priority, Meta(description="Which of its owner's waiting jobs is begun first", examples=["normal"])
    ]
    inspection: (
        Annotated[Inspection, Meta(description="How closely its archive is looked at", examples=["standard"])] | None
    ) = None
    attempts: Annotated[int, Meta(description="The number of the current step's attempt", examples=[1])]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.568627Z"])]
    updated_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:58.020748Z"])]
    queued_at: Annotated[
        Time | None, Meta(description="Its file was complete", examples=["2025-09-15T11:41:51.568627Z"])
    ]
    started_at: Annotated[
        Time | None, Meta(description="The first step was claimed", examples=["2025-09-15T11:41:51.694129Z"])
    ]
    completed_at: Annotated[Time | None, Meta(description="It became final", examples=["2025-09-15T11:41:58.020748Z"])]
    results_parsed_at: Annotated[
        Time | None, Meta(description="Its results can be read", examples=["2025-09-15T11:41:58.016022Z"])
    ]


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of jobs, newest first; pass ``next`` as ``after`` for the following one, null after the last."""

    items: list[Job]
    next: JobId | None


class JobOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job ordered as JSON. Without ``filename`` the job waits in `pending` for its file."""

    kind: Annotated[str, Meta(description="The pipeline to run", examples=["inference"])] = "inference"
    filename: (
        Annotated[
            str,
            Meta(
                max_length=100,
                description="An uploaded file's stored name",
                examples=["01994d2e-6a4f-7f12-b6a8-c43e5b7d9012.zip"],
            ),
        ]
        | None
    ) = None
    title: Title | None = None
    description: Description | None = None
    profile: (
        Annotated[str, Meta(max_length=100, description="One of the installation's profiles", examples=["default"])]
        | None
    ) = None
    threshold: Threshold | None = None
    priority: Annotated[Priority, Meta(examples=["normal"])] = Priority.NORMAL
    inspection: (
        Annotated[
            Inspection,
            Meta(
                description="`deep` compares every member's own header with the archive's directory, by up to "
                "`ARCHIVE_DEEP_READS_ON_REQUEST` reads where they did not go by in the upload; `standard` by default",
                examples=["standard"],
            ),
        ]
        | None
    ) = None


def read_order(fields: Mapping[str, str]) -> JobOrder:
    """An order from the fields of a form; an empty one is not given. Raises Invalid."""
    given = {name: value for name, value in fields.items() if value != ""}
    try:
        return msgspec.convert(given, JobOrder, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_order(error) from None


def wrong_order(error: msgspec.ValidationError) -> Invalid:
    """msgspec ends its sentence with the place: "... - at `$.threshold`"."""
    reason, _, place = str(error).partition(" - at `$.")
    return Invalid(field=place.rstrip("`") or None, reason=reason)


class JobChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be changed of a job at any time."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType | None = msgspec.UNSET


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one step: who made it, when, and how it ended."""

    step: Annotated[str, Meta(examples=["submit"])]
    attempt: Annotated[
        int,
        Meta(description="Counts failures of the step, from 1; an interrupted attempt keeps its number", examples=[1]),
    ]
    outcome: Annotated[
        str,
        Meta(
            description="`running`, `done`, `retrying`, `postponed`, `failed`, `interrupted`, `lost` (its worker "
            "died), `timed_out` or `cancelled`",
            examples=["retrying"],
        ),
    ]
    worker: Annotated[str | None, Meta(examples=["vm/pid:[4026531836]:31578"])]
    started_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.904921Z"])]
    finished_at: Annotated[Time | None, Meta(examples=["2025-09-15T11:41:52.941594Z"])]
    error: AttemptError | None


class AttemptPage(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts of a job in the order they ended, then the one that runs; pass ``next`` as ``after``."""

    items: list[Attempt]
    next: Annotated[int | None, Meta(examples=[None])]


class EventType(StrEnum):
    """What can happen to a job."""

    CREATED = "created"
    QUEUED = "queued"
    STAGE = "stage"  # a step has begun
    PROGRESS = "progress"  # live only: not stored, has no seq
    HANDED_OVER = "handed_over"  # a step is done and the next one waits for a worker
    WAITING = "waiting"  # the work is with somebody else, no worker is held
    RESUMED = "resumed"  # what it waited for has come
    RETRYING = "retrying"  # an attempt failed for a passing reason
    POSTPONED = "postponed"  # put off for a reason that is not the job's: a neighbour is down or asks for patience
    INTERRUPTED = "interrupted"  # the worker stopped or died; nothing failed
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED})


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a job's record, as it is stored, published and streamed. ``seq`` starts at 1 and has no gaps."""

    job_id: JobId
    type: Annotated[
        EventType,
        Meta(
            description="`stage`: a step has begun; `handed_over`: the next one waits for a worker; `waiting`: the "
            "work is with the ML service; `retrying`: an attempt failed for a passing reason; `postponed`: put off, "
            "nothing failed; `interrupted`: the worker stopped, nothing failed; `progress` is live only and has no "
            "`seq`; the final states end the stream",
            examples=["stage"],
        ),
    ]
    at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.694129Z"])]
    data: Annotated[
        dict[str, Any],
        Meta(
            description="`status`, `stage`, `progress`, `message`, `attempt`, `error`: what the job has of them; "
            "`eta_seconds` of `progress` where it is known",
            examples=[{"stage": "inspect", "status": "processing", "attempt": 1, "progress": 0}],
        ),
    ]
    seq: Annotated[int | None, Meta(examples=[2])] = None

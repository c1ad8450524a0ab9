"""The `inference` pipeline and the contract with the ML service (docs/ml-service.md)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.errors.inference import MlTimeout, UnknownProfile
from domain.errors.requests import Invalid
from domain.files import clean_name
from domain.jobs import Inspection, Threshold
from domain.pipelines import JobInStep, Pipeline, ResultFile, Retry, Step, Tell
from domain.settings import Settings

requires = ("archives", "results")

LARGEST = 2**53  # bytes; the largest whole number every reader of JSON agrees on
SHORT_RESULT = 1024 * 1024  # bytes; parsed in well under a second, so a hop to a cpu worker would cost more


def _short_result(job: JobInStep) -> bool:
    return job.result is not None and job.result.size <= SHORT_RESULT


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be ordered for one job: of the ML service, and of the inspection before it."""

    profile: str | None = None
    threshold: Threshold | None = None
    inspection: Inspection = Inspection.STANDARD


def read_params(ordered: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What one job is ordered with, and the configured defaults for what was not ordered.

    Raises:
        UnknownProfile: it is not one of ML_PROFILES.
        Invalid: the threshold is not a number from 0 to 1, or something else was ordered.
    """
    try:
        params = msgspec.convert(ordered, Params, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(field="threshold" if "threshold" in str(error) else "body", reason=str(error)) from None
    profile = params.profile or settings.ml_default_profile
    if profile not in settings.profiles:
        raise UnknownProfile(field="profile", profile=profile, known=", ".join(settings.profiles))
    threshold = settings.ml_decision_threshold if params.threshold is None else params.threshold
    return {"profile": profile, "threshold": threshold, "inspection": str(params.inspection)}


PIPELINE = Pipeline(
    name="inference",
    tell_cancelled=Tell(task="inference.tell_cancelled", queue="io", stages=("submit", "waiting", "ask")),
    read_params=read_params,
    steps=(
        Step(name="inspect", queue="io", until=10),
        Step(name="submit", queue="io", until=80, short=lambda job: True, overdue=MlTimeout, asks="ask"),
        Step(name="ask", queue="io", until=80, aside=True, retry=Retry(attempts=3, base_seconds=1, cap_seconds=5)),
        Step(name="parse", queue="cpu", until=98, short=_short_result),
        Step(name="finish", queue="io", until=100, short=lambda job: True),
    ),
)
pipelines = (PIPELINE,)

SUCCESS_WORDS = frozenset({"succeeded", "success", "completed", "done"})
FAILURE_WORDS = frozenset({"failed", "error"})
UNKNOWN = "unknown"  # of a Standing, with 404: the service has forgotten the job, as after a restart
UNFINISHED_WORDS = frozenset({"accepted", "queued", "pending", "working", "processing", "running"})  # of a Standing


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What is POSTed to ``{ML_SERVICE_URL}/infer``."""

    job_uuid: str
    input_object: str  # for a service that shares the bucket
    output_object: str
    profile: str
    threshold: float
    input_url: str  # presigned GET and PUT, for a service that does not
    output_url: str
    callback_url: str


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a 200: the work is already done. A 202 may have any body."""

    job_uuid: str
    output_object: str
    file_size: int | None = None  # bytes
    duration_seconds: float | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What the ML service reports when it has finished a job."""

    status: Annotated[
        str,
        Meta(
            max_length=40,
            description="`succeeded`, `success`, `completed` or `done`; `failed` or `error`; in any case",
            examples=["succeeded"],
        ),
    ]
    output_object: (
        Annotated[str, Meta(max_length=500, description="Below `results/{job_id}/`; by default where `output_url` led")]
        | None
    ) = None
    file_size: Annotated[int, Meta(ge=0, le=LARGEST, description="Bytes", examples=[5414])] | None = None
    file_name: Annotated[str, Meta(max_length=255, examples=["results.xlsx"])] | None = None
    error: Annotated[str, Meta(description="Why it failed; what is beyond 10,000 characters is cut")] | None = None
    job_uuid: (
        Annotated[
            UUID,
            Meta(
                description="The job's id; worth sending with a signature, which does not cover the URL",
                examples=["01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"],
            ),
        ]
        | None
    ) = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands with the ML service, as it answers ``GET {ML_SERVICE_URL}/jobs/{job_uuid}``.

    Once the job has ended the fields are those of its completion.
    """

    job_uuid: str
    status: str
    output_object: str | None = None
    file_size: Annotated[int, Meta(ge=0, le=LARGEST)] | None = None  # bytes
    file_name: str | None = None
    error: str | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the ML service is with a job; optional, as often as it likes."""

    progress: Annotated[float, Meta(ge=0, le=100, description="Percent of the service's own work", examples=[40])]
    message: Annotated[str, Meta(max_length=255, examples=["2 of 3 files"])] | None = None


def outcome_of(status: str) -> Literal["succeeded", "failed"] | None:
    """What a status word means, without regard to case; None when it is not one of the contract's."""
    word = status.strip().lower()
    if word in SUCCESS_WORDS:
        return "succeeded"
    return "failed" if word in FAILURE_WORDS else None


def result_of(job_id: UUID, told: Completion | Standing) -> ResultFile:
    """The result a completion or a status names; by default it lies where the service was asked to put it.

    Raises:
        Invalid: it lies elsewhere; ``field`` is ``output_object``.
    """
    prefix = result_prefix(str(job_id))
    key = told.output_object or f"{prefix}1"
    # a store takes `..` for a name like any other; whoever keeps its objects as files may not
    if not key.startswith(prefix) or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise Invalid(field="output_object", reason=f"must lie below {prefix}")
    return ResultFile(key=key, name=clean_name(told.file_name or "") or f"{job_id}.xlsx", size=told.file_size or 0)


def reason_of(error: str | None) -> str:
    """Why a service says it failed, as it can be stored: a verdict is not refused for the length of its reason."""
    return (error or "no reason given").replace("\0", "\ufffd")[:10_000]


def result_prefix(job_id: str) -> str:
    """Where a job's results lie. A service can name no object outside it, least of all the job's input."""
    return f"results/{job_id}/"

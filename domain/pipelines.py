"""Pipelines: what a kind of job goes through. A new pipeline is a declaration here-shaped and its step functions.

A **step** is a plain function ``(job, context) -> Outcome``. It knows nothing of Celery, retries, leases or events: the
engine in ``workers.engine`` gives every step the same promises.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec

from domain.errors import MillraceError
from domain.errors.requests import Invalid
from domain.modules import floor
from domain.settings import Settings

# Work a step wants done in the transaction that ends it, given the open database connection. If the claim no longer
# stands, none of it happens.
Effect = Callable[[Any], None]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often and when a step that failed for a passing reason is tried again (exponential backoff, full jitter)."""

    attempts: int
    base_seconds: float
    cap_seconds: float
    deadline_seconds: float = 3600.0  # no attempt begins later than this after the first one began

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after the failed attempt number ``attempt`` (1-based); ``jitter`` is uniform in [0, 1)."""
        return jitter * min(self.cap_seconds, self.base_seconds * 2.0 ** (attempt - 1))


class Step(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    queue: str  # the kind of load: io, cpu, mail; each can have workers of its own
    until: int  # the job's progress in percent once this step, or the waiting after it, is over
    retry: Retry | None = None  # None: the policy of the settings
    seconds: float | None = None  # the longest it may run; None: STEP_SECONDS of the settings
    # A worker goes straight on to the next step when that one will be short: it saves a hop through the broker.
    short: Callable[["JobInStep"], bool] = lambda job: False
    # The outcome may be Wait: the next step begins only when something outside says so. This is the error the job fails
    # with when nothing says so by the deadline.
    overdue: type[MillraceError] | None = None
    # The step that goes and asks when nothing has been said by the deadline; it decides, and may Wait again.
    asks: str | None = None
    aside: bool = False  # not on the way: no step is followed by it, it is what another one ``asks``


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    """The task (args: the job's id) that tells whoever works on a job that it was cancelled."""

    task: str
    queue: str
    stages: tuple[str, ...]  # in which somebody else may be at work


def takes_nothing(ordered: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Of a pipeline that has no params. Raises Invalid: something was ordered, which would be ignored."""
    for name in ordered:
        raise Invalid(field=name, reason=f"a job of this kind does not take `{name}`")
    return {}


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    steps: tuple[Step, ...]
    # What a client may order besides the file, read and checked: (what came, settings) -> the job's params.
    # Raises Invalid or a subclass that names the field.
    read_params: Callable[[Mapping[str, Any], Settings], dict[str, Any]] = takes_nothing
    tell_cancelled: Tell | None = None
    takes_file: bool = True  # else a job of it is queued without one

    def step(self, name: str) -> Step:
        return self.steps[self._index(name)]

    def after(self, name: str) -> Step | None:
        """The step that follows, None after the last."""
        return next((step for step in self.steps[self._index(name) + 1 :] if not step.aside), None)

    def starts_at(self, name: str) -> int:
        """The job's progress in percent when the step begins."""
        index = self._index(name)
        return self.steps[index - 1].until if index else 0

    def segment(self, name: str) -> Sequence[Step]:
        """The steps from ``name`` up to the next one that waits: what one Celery chain carries."""
        first, *following = self.steps[self._index(name) :]
        steps = [first]
        for step in following:
            if steps[-1].overdue or steps[-1].aside:
                break
            if not step.aside:
                steps.append(step)
        return steps

    def _index(self, name: str) -> int:
        return next(index for index, step in enumerate(self.steps) if step.name == name)


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file a job works on, as a step sees it."""

    key: str
    name: str
    size: int  # bytes
    content_type: str
    kind: str  # single | zip
    local_headers: str | None = None  # of an archive that was seen as it came: see domain.archives.walking


class ResultFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file a job has produced; kept beside its input, never in its place."""

    key: str
    name: str
    size: int  # bytes


class JobInStep(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed job, as its step sees it."""

    id: UUID
    owner_id: UUID
    kind: str
    step: str
    attempt: int  # 1-based, counts what failed; an interrupted attempt keeps its number
    params: dict[str, Any]
    file: InputFile | None = None
    result: ResultFile | None = None
    signal: dict[str, Any] | None = None  # what ended the waiting, e.g. the ML service's completion
    delayed: float = 0.0  # seconds since the step was first put off with Later, or since the job began to Wait


class Context(Protocol):
    """What a step may ask of the engine while it runs."""

    def progress(
        self, done: float, total: float, message: str | None = None, *, part: tuple[int, int] = (1, 1)
    ) -> None:
        """Report how far the step is; cheap to call often, it is coalesced. Also a checkpoint.

        ``part`` is for a step that counts several things one after another: (2, 3) says that ``done`` of ``total`` are
        of the second of three. How long the step will take still is only told in its last part: nobody knows the pace
        of what has not begun.
        """

    def checkpoint(self) -> None:
        """Call within long loops: leaves the step when the job was cancelled or the worker is being stopped."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The step is done; its effects, its event and the move to the next step are committed together."""

    effects: tuple[Effect, ...] = ()
    message: str | None = None
    result: ResultFile | None = None


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """The step is done and the job now waits, without a worker, until a signal or the deadline."""

    seconds: float
    message: str | None = None
    effects: tuple[Effect, ...] = ()


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """The step cannot be done now for a reason that is not the job's: it is put off and stays the same attempt."""

    seconds: float  # at the latest; the step itself ends what goes on for too long (``JobInStep.delayed``)
    message: str
    circuit: str | None = None  # also as soon as this circuit (``storage.circuits``) lets it through
    error: MillraceError | None = None  # what happened, for the record of attempts


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The job ends with this error, however many attempts are left and whether or not a rerun could succeed."""

    error: MillraceError


Outcome = Done | Wait | Later | Failed
StepFunction = Callable[[JobInStep, Context], Outcome]


def declared(words: Sequence[str]) -> dict[str, Pipeline]:
    """The pipelines of these capabilities, by name."""
    return {
        pipeline.name: pipeline for module in floor("domain", words) for pipeline in getattr(module, "pipelines", ())
    }


def named(pipelines: dict[str, Pipeline], name: str) -> Pipeline:
    """Raises Invalid when no pipeline has that name."""
    if name not in pipelines:
        raise Invalid(field="kind", reason=f"unknown kind {name!r}; known kinds: {', '.join(sorted(pipelines))}")
    return pipelines[name]

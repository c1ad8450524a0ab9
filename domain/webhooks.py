"""Webhooks: endpoints of an owner that are told what happens to jobs, as Standard Webhooks 1.0 has it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from domain import signatures
from domain.jobs import Time

PING = "ping"
KEY_BYTES = 32  # of a new secret
OLD_SECRET_SECONDS = 24 * 3600.0  # for which a secret signs beside the one that has replaced it
SECRETS_AT_MOST = 10  # that sign at once
ANSWER_BYTES = 1024  # of an answer are read and kept
LONGEST_RETRY_AFTER = 24 * 3600.0  # seconds
JITTER = 0.2  # a retry comes up to so much earlier or later, as a part of its delay
PER_ENDPOINT = 4  # requests to one endpoint at once; to one that fails, one


class HookType(StrEnum):
    """What an endpoint can be told: the stored events of a job (``domain.jobs.EventType``)."""

    CREATED = "job.created"
    QUEUED = "job.queued"
    STAGE = "job.stage"
    HANDED_OVER = "job.handed_over"
    WAITING = "job.waiting"
    RESUMED = "job.resumed"
    RETRYING = "job.retrying"
    POSTPONED = "job.postponed"
    INTERRUPTED = "job.interrupted"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"


ENDS = (HookType.SUCCEEDED, HookType.FAILED, HookType.CANCELLED)


class State(StrEnum):
    """Of a delivery."""

    PENDING = "pending"
    """Due now or later, or on its way."""
    DELIVERED = "delivered"
    """Answered with 2xx. A replay makes it pending again."""
    FAILED = "failed"
    """Given up: no attempt is left, or its endpoint was disabled. A replay makes it pending again."""


class Fault(StrEnum):
    """How an attempt failed."""

    STATUS = "status"  # an answer other than 2xx
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    NO_HTTP = "no_http"  # an answer that is no HTTP
    URL_REFUSED = "url_refused"  # by today's rules, or for what its name means today
    HOST_UNKNOWN = "host_unknown"


class DisabledReason(StrEnum):
    """Why an endpoint was switched off."""

    OWNER = "owner"
    GONE = "gone"  # it answered 410
    FAILING = "failing"  # nothing but failures for WEBHOOK_DISABLE_SECONDS


Url = Annotated[str, Meta(min_length=1, max_length=2048, examples=["https://example.com/hooks/millrace"])]
Types = Annotated[
    list[HookType],
    Meta(
        min_length=1,
        max_length=len(HookType),
        description="What it is told of; without it the ends of jobs",
        examples=[[str(one) for one in ENDS]],
    ),
]
Description = Annotated[str, Meta(max_length=1000, examples=["The archive of the clinic"])]
Secret = Annotated[
    str,
    Meta(
        description="Shown this once: `whsec_` and the base64 of the key",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1aW6kHNTgyQ="],
    ),
]


class WebhookOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint to be registered."""

    url: Annotated[Url, Meta(description="Called by POST; public, and `https` outside of development")]
    event_types: Types = msgspec.field(default_factory=lambda: list(ENDS))
    description: Description | None = None
    enabled: Annotated[bool, Meta(examples=[True])] = True


class WebhookChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is sent is changed."""

    url: Url | UnsetType = UNSET
    event_types: Types | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    enabled: (
        Annotated[bool, Meta(description="true begins anew: its failures are forgotten", examples=[True])] | UnsetType
    ) = UNSET


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A registered endpoint."""

    id: Annotated[UUID, Meta(examples=["01994d2e-7f00-7c11-9a51-2f6d0c8e1b35"])]
    url: Url
    event_types: Types
    description: Annotated[str | None, Meta(examples=["The archive of the clinic"])]
    enabled: Annotated[bool, Meta(examples=[True])]
    disabled_reason: Annotated[
        DisabledReason | None,
        Meta(description="`owner`, `gone` (it answered 410) or `failing` (for three days)", examples=[None]),
    ]
    failing_since: Annotated[Time | None, Meta(description="Null after a success", examples=[None])]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.568627Z"])]
    updated_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.568627Z"])]


class NewWebhook(Webhook, frozen=True, kw_only=True):
    """A registered endpoint with what signs its requests; the secret is null where a key was sent again."""

    secret: Secret | None


class NewSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What signs from now on; the one before does as well until ``previous_until``."""

    secret: Secret
    previous_until: Annotated[datetime, Meta(tz=True, examples=["2025-09-16T11:41:51.568627Z"])]


class WebhookPage(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints, newest first; pass ``next`` as ``after`` for the following page, null after the last."""

    items: list[Webhook]
    next: Annotated[UUID | None, Meta(examples=[None])]


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request and what became of it."""

    number: Annotated[int, Meta(examples=[1])]
    at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:59.120431Z"])]
    status_code: Annotated[int | None, Meta(description="Null where no answer came", examples=[500])]
    seconds: Annotated[float, Meta(description="How long it took", examples=[0.043])]
    answer: Annotated[str | None, Meta(description="The first 1 KiB of it", examples=["try again later"])]
    fault: Annotated[
        Fault | None,
        Meta(
            description="Null when it succeeded; `status` is an answer other than 2xx, `url_refused` an address that "
            "may not be called",
            examples=["status"],
        ),
    ]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one endpoint. ``message_id`` is the header `webhook-id` of each of its requests."""

    id: Annotated[UUID, Meta(examples=["01994d2e-8a10-7d42-8b11-6a0c9e2f7d18"])]
    message_id: Annotated[str, Meta(examples=["msg_01994d2e8a107d428b116a0c9e2f7d18"])]
    type: Annotated[str, Meta(description="`job.` and the event's type, or `ping`", examples=["job.succeeded"])]
    job_id: Annotated[UUID | None, Meta(examples=["01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"])]
    state: Annotated[State, Meta(examples=["pending"])]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:58.820748Z"])]
    next_attempt_at: Annotated[Time | None, Meta(examples=["2025-09-15T11:42:04.320431Z"])]
    completed_at: Annotated[Time | None, Meta(examples=[None])]
    attempts: list[DeliveryAttempt]


class DeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries, newest first; pass ``next`` as ``after`` for the following page, null after the last."""

    items: list[Delivery]
    next: Annotated[UUID | None, Meta(examples=[None])]


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a request: what happened, when, and to what."""

    type: str
    timestamp: datetime
    data: dict[str, Any]


def new_secret() -> str:
    return signatures.PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def message_id(delivery_id: UUID) -> str:
    """The same for every attempt, and without the full stop that separates what is signed."""
    return f"msg_{delivery_id.hex}"


def signed(keys: Sequence[str], delivery_id: UUID, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers, with a signature of each secret, the newest first."""
    made = [signatures.sign(signatures.key_of(key), message_id(delivery_id), timestamp, body) for key in keys]
    return {**made[0], signatures.SIGNATURE: " ".join(one[signatures.SIGNATURE] for one in made)}


def delays_of(text: str) -> tuple[float, ...]:
    """``5,300,1800``: the seconds between one attempt and the next. Raises ValueError."""
    delays = tuple(float(word) for word in text.split(","))
    if not all(0 < delay < float("inf") for delay in delays):
        raise ValueError("must be numbers of seconds above 0, separated by commas")
    return delays


def next_delay(delays: Sequence[float], failed: int, jitter: float, retry_after: float | None = None) -> float | None:
    """Seconds until the next attempt after the ``failed``-th one (from 1); None when it was the last.

    ``jitter`` is uniform in [-1, 1). What the receiver asked for counts where it is longer, up to a day.
    """
    if failed > len(delays):
        return None
    delay = delays[failed - 1] * (1 + JITTER * jitter)
    return max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER))

"""Mailboxes: where recordings arrive, how to get in, which messages to take and what to do with them afterwards."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from domain.jobs import Job, Time


class Security(StrEnum):
    """How the connection is secured; `none` only where the installation allows it."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


class Auth(StrEnum):
    """How to log in."""

    PASSWORD = "password"  # noqa: S105  # the word, not one
    XOAUTH2 = "xoauth2"


class AfterAction(StrEnum):
    """What becomes of a message once its recordings are kept."""

    NONE = "none"
    SEEN = "seen"
    MOVE = "move"


class DisabledReason(StrEnum):
    """Why a mailbox was switched off."""

    ADMIN = "admin"
    LOGIN_REFUSED = "login_refused"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105  # the keys of the settings have changed


class MessageState(StrEnum):
    """Of a message that was claimed."""

    CLAIMED = "claimed"
    """Found and not done with. The step `fetch` moves it on."""
    STORED = "stored"
    """At least one recording of it was new."""
    DUPLICATE = "duplicate"
    """All its recordings were known. Final, as all that follow."""
    SKIPPED = "skipped"
    """By a rule of ours: too large, gone from the server, nothing in it."""
    FAILED = "failed"
    """It could not be read, however often it was tried."""


class Skipped(StrEnum):
    """The reasons of messages that gave no recording of their own."""

    TOO_LARGE = "too_large"
    GONE = "gone"  # deleted or moved before it was fetched
    EMPTY = "empty"  # a part without a byte
    UNREADABLE = "unreadable"  # neither structure nor part could be made sense of
    LONG_DESCRIPTION = "long_description"  # thousands of parts or recipients: more than is read of a description
    SAME_MESSAGE = "same_message"  # it was there under the folder's former UIDVALIDITY
    SAME_AUDIO = "same_audio"


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which messages are taken: those that every rule fits. Case does not count."""

    senders: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]],
        Meta(max_length=20, description="Any of these in the sender", examples=[["auto-mailer@mangotele.com"]]),
    ] = []
    subjects: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]],
        Meta(max_length=20, description="Any of these in the subject", examples=[["запись", "recording"]]),
    ] = []
    attachment: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            description="The attachment's name, with `*` and `?`; audio only, whatever it says",
            examples=["*"],
        ),
    ] = "*"
    max_age_days: Annotated[int, Meta(ge=1, le=3650, description="By the server's date", examples=[30])] = 30


Host = Annotated[
    str, Meta(min_length=1, max_length=253, pattern=r"^[^\s/@]+$", examples=["imap.rambler.ru"], description="By name")
]
Port = Annotated[int, Meta(ge=1, le=65535, examples=[993])]
_NO_CONTROLS = r"^(?![\s\S]*[\x00-\x1f\x7f])"  # a line's end in the name would begin another command of IMAP
Username = Annotated[str, Meta(min_length=1, max_length=255, pattern=_NO_CONTROLS, examples=["recordings@example.com"])]
Secret = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=8192,
        pattern=_NO_CONTROLS,
        description="The password, or the access token of `xoauth2`; kept encrypted and never shown",
        examples=["correct horse battery staple"],
    ),
]
Folder = Annotated[str, Meta(min_length=1, max_length=255, examples=["INBOX"])]
MoveTo = Annotated[str, Meta(min_length=1, max_length=255, examples=["Fetched"])]
Zone = Annotated[
    str,
    Meta(
        min_length=1, max_length=64, description="Of the times in attachments' names (IANA)", examples=["Europe/Moscow"]
    ),
]
PollSeconds = Annotated[
    int, Meta(ge=1, le=7 * 24 * 3600, description="Between two looks of the schedule", examples=[300])
]
Enabled = Annotated[bool, Meta(examples=[True])]


class MailboxOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mailbox to be watched."""

    host: Host
    port: Port = 993
    security: Annotated[Security, Meta(examples=["tls"])] = Security.TLS
    auth: Annotated[Auth, Meta(examples=["password"])] = Auth.PASSWORD
    username: Username
    secret: Secret
    folder: Folder = "INBOX"
    rules: Rules = msgspec.field(default_factory=Rules)
    time_zone: Zone = "Europe/Moscow"
    after_action: Annotated[AfterAction, Meta(examples=["none"])] = AfterAction.NONE
    move_to: Annotated[MoveTo | None, Meta(description="With `move`", examples=[None])] = None
    poll_seconds: PollSeconds = 300
    enabled: Enabled = True
    owner_id: Annotated[
        UUID | None, Meta(description="Whose the recordings are; without it your own", examples=[None])
    ] = None


class MailboxChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only what is sent is changed."""

    host: Host | UnsetType = UNSET
    port: Port | UnsetType = UNSET
    security: Annotated[Security, Meta(examples=["tls"])] | UnsetType = UNSET
    auth: Annotated[Auth, Meta(examples=["password"])] | UnsetType = UNSET
    username: Username | UnsetType = UNSET
    secret: Secret | UnsetType = UNSET
    folder: Folder | UnsetType = UNSET
    rules: Rules | UnsetType = UNSET
    time_zone: Zone | UnsetType = UNSET
    after_action: Annotated[AfterAction, Meta(examples=["none"])] | UnsetType = UNSET
    move_to: MoveTo | UnsetType | None = UNSET
    poll_seconds: PollSeconds | UnsetType = UNSET
    enabled: Enabled | UnsetType = UNSET


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """A mailbox as an admin sees it, without its secret."""

    id: Annotated[UUID, Meta(examples=["01994d2e-7f00-7c11-9a51-2f6d0c8e1b35"])]
    owner_id: Annotated[UUID, Meta(examples=["01994d2e-5a10-7a52-9c1d-0a6f3e9b8c11"])]
    host: Host
    port: Port
    security: Annotated[Security, Meta(examples=["tls"])]
    auth: Annotated[Auth, Meta(examples=["password"])]
    username: Username
    folder: Folder
    rules: Rules
    time_zone: Zone
    after_action: Annotated[AfterAction, Meta(examples=["none"])]
    move_to: Annotated[str | None, Meta(examples=[None])]
    poll_seconds: PollSeconds
    scheduled: Annotated[bool, Meta(description="By POST /recordings/start and /stop", examples=[True])]
    enabled: Enabled
    disabled_reason: Annotated[
        DisabledReason | None,
        Meta(description="`admin`, `login_refused` or `secret_unreadable`", examples=[None]),
    ]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.568627Z"])]
    updated_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.568627Z"])]


class MailboxPage(msgspec.Struct, frozen=True, kw_only=True):
    """Mailboxes, newest first; pass ``next`` as ``after`` for the following page, null after the last."""

    items: list[Mailbox]
    next: Annotated[UUID | None, Meta(examples=[None])]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A message the rules would take."""

    uid: Annotated[int, Meta(examples=[4711])]
    subject: Annotated[str, Meta(examples=["Запись разговора"])]
    sender: Annotated[str, Meta(examples=["auto-mailer@mangotele.com"])]
    received_at: Annotated[Time | None, Meta(examples=["2025-09-15T11:41:51Z"])]
    attachments: Annotated[list[str], Meta(examples=[["2025.09.15__14-40-02__79161234567__74951234567.mp3"]])]
    size: Annotated[int, Meta(description="Bytes of the whole message", examples=[482113])]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a mailbox found; nothing was taken or changed."""

    folders: Annotated[list[str], Meta(description="The first thousand", examples=[["INBOX", "Fetched"]])]
    messages: Annotated[int, Meta(description="In the folder", examples=[312])]
    matching: Annotated[int, Meta(description="By sender, subject and age", examples=[14])]
    candidates: Annotated[list[Candidate], Meta(description="Of the newest twenty, those with audio")]


class MailboxStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How the fetching from one mailbox stands. The numbers count since it was made."""

    mailbox_id: Annotated[UUID, Meta(examples=["01994d2e-7f00-7c11-9a51-2f6d0c8e1b35"])]
    host: Host
    username: Username
    folder: Folder
    enabled: Enabled
    disabled_reason: Annotated[DisabledReason | None, Meta(examples=[None])]
    scheduled: Annotated[bool, Meta(examples=[True])]
    checked_at: Annotated[Time | None, Meta(description="The last look", examples=["2025-09-15T11:41:51.568627Z"])]
    next_poll_at: Annotated[
        Time | None, Meta(description="Null when none is to come", examples=["2025-09-15T11:46:51.568627Z"])
    ]
    job_id: Annotated[UUID | None, Meta(description="The last job", examples=["01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"])]
    found: Annotated[int, Meta(description="Messages with audio", examples=[14])]
    waiting: Annotated[int, Meta(description="Found and not fetched yet", examples=[0])]
    stored: Annotated[int, Meta(examples=[12])]
    duplicates: Annotated[int, Meta(description="Of what was known already", examples=[1])]
    skipped: Annotated[int, Meta(examples=[1])]
    errors: Annotated[int, Meta(description="Messages that could not be read", examples=[0])]
    matched: Annotated[int, Meta(description="Recordings", examples=[11])]
    unmatched: Annotated[int, Meta(description="Recordings", examples=[1])]
    failures: Annotated[int, Meta(description="Looks in a row that failed", examples=[0])]
    error_code: Annotated[str | None, Meta(description="Of the last look", examples=[None])]
    error_message: Annotated[str | None, Meta(examples=[None])]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Every mailbox of yours; an admin sees everybody's."""

    mailboxes: list[MailboxStanding]


class Fetching(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that fetch, one for each mailbox; one that was under way already is named instead of another."""

    jobs: list[Job]

"""Recordings as clients see them, and what audio is by its first bytes."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.jobs import Time

HEAD = 64  # bytes that are enough for ``content_type_of``


class MatchStatus(StrEnum):
    """Whether the call it is of is known."""

    UNMATCHED = "unmatched"
    MATCHED = "matched"


class AudioWarning(StrEnum):
    """What is unusual about a recording that is kept all the same."""

    NOT_AUDIO = "not_audio"  # by its first bytes
    AUDIO_UNREADABLE = "audio_unreadable"  # audio by its first bytes, but it cannot be decoded
    AUDIO_DAMAGED = "audio_damaged"  # decoded up to a damaged place


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A recording of a call. Numbers are E.164; what the attachment's name did not say is null."""

    id: Annotated[UUID, Meta(examples=["01994d2e-8a10-7d42-8b11-6a0c9e2f7d18"])]
    mailbox_id: Annotated[UUID | None, Meta(examples=["01994d2e-7f00-7c11-9a51-2f6d0c8e1b35"])]
    job_id: Annotated[
        UUID | None, Meta(description="Which fetched it", examples=["01994d2e-6a50-7b3d-8c21-5d1f0e9a4b77"])
    ]
    name: Annotated[str, Meta(examples=["2025.09.15__14-40-02__79161234567__74951234567.mp3"])]
    content_type: Annotated[str, Meta(description="By the content", examples=["audio/mpeg"])]
    size: Annotated[int, Meta(description="Bytes", examples=[480044])]
    sha256: Annotated[str, Meta(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]
    from_number: Annotated[str | None, Meta(examples=["+79161234567"])]
    to_number: Annotated[str | None, Meta(description="The callee's, or the line's", examples=["+74951234567"])]
    started_at: Annotated[Time | None, Meta(description="The call, by the name", examples=["2025-09-15T11:40:02Z"])]
    received_at: Annotated[datetime, Meta(tz=True, description="By the mail server", examples=["2025-09-15T11:41:51Z"])]
    duration_seconds: Annotated[float | None, Meta(examples=[60.01])]
    codec: Annotated[str | None, Meta(examples=["mp3"])]
    channels: Annotated[int | None, Meta(examples=[2])]
    sample_rate: Annotated[int | None, Meta(description="Hz", examples=[8000])]
    bitrate: Annotated[int | None, Meta(description="Bits per second", examples=[64000])]
    speech_share: Annotated[
        float | None, Meta(description="From 0 to 1, by a model of voice activity", examples=[0.71])
    ]
    listened: Annotated[bool, Meta(description="Whether duration to speech share are known, or never", examples=[True])]
    warning: Annotated[
        AudioWarning | None, Meta(description="`not_audio`, `audio_unreadable` or `audio_damaged`", examples=[None])
    ]
    status: Annotated[MatchStatus, Meta(examples=["matched"])]
    call_id: Annotated[UUID | None, Meta(examples=["01994d2e-9b20-7e53-9c22-7b1d0f3a8e29"])]
    matched_at: Annotated[Time | None, Meta(examples=["2025-09-15T11:42:03.118212Z"])]
    matched_by: Annotated[str | None, Meta(description="`rule` or `hand`", examples=["rule"])]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:58.820748Z"])]


class RecordingPage(msgspec.Struct, frozen=True, kw_only=True):
    """Recordings, newest first; pass ``next`` as ``after`` for the following page, null after the last."""

    items: list[Recording]
    next: Annotated[UUID | None, Meta(examples=[None])]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody was sent audio, or a part of it."""

    id: Annotated[int, Meta(examples=[17])]
    recording_id: Annotated[UUID, Meta(examples=["01994d2e-8a10-7d42-8b11-6a0c9e2f7d18"])]
    account_id: Annotated[UUID, Meta(examples=["01994d2e-5a10-7a52-9c1d-0a6f3e9b8c11"])]
    username: Annotated[str, Meta(examples=["anna.petrova"])]
    at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:50:12.406122Z"])]
    part: Annotated[str | None, Meta(description="What `Range` asked for", examples=["bytes=0-1023"])]


class AccessPage(msgspec.Struct, frozen=True, kw_only=True):
    """Accesses, newest first; pass ``next`` as ``after`` for the following page, null after the last."""

    items: list[Access]
    next: Annotated[int | None, Meta(examples=[None])]


def content_type_of(head: bytes) -> str | None:
    """The media type of audio by its first bytes; None where they are of nothing that is audio."""
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "audio/wav"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head.startswith(b"#!AMR"):
        return "audio/amr"
    if head[4:8] == b"ftyp":
        # a telephone exchange sends no films: MP4 with audio alone is marked M4A by some writers only
        return "audio/mp4"
    if head.startswith(b"ID3"):
        return "audio/mpeg"
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        layer = head[1] >> 1 & 0b11  # 0 is ADTS, where MPEG audio has its layers (ISO 11172-3, 13818-7)
        return "audio/mpeg" if layer else "audio/aac"
    return None

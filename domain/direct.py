"""Uploads that clients send straight to the object storage, by presigned URLs, in parts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from domain.files import FileId

MIB = 1024**2
SMALLEST_PART = 5 * MIB  # of all parts but the last (S3 user guide, multipart upload limits)
LARGEST_PART = 5 * 1024 * MIB
PARTS = 10_000
PART = 64 * MIB  # when nobody asks for another

Sha256 = Annotated[
    str,
    Meta(
        pattern="^[0-9a-fA-F]{64}$",
        description="64 hexadecimal digits",
        examples=["9bdb9494a5b16374a356cb08c5c0d34d7b1faf65ecc8905a93299856c42a686d"],
    ),
]
ETag = Annotated[
    str,
    Meta(min_length=1, max_length=100, description="As S3 answered", examples=['"5d41402abc4b2a76b9719d911017c592"']),
]
Number = Annotated[int, Meta(ge=1, le=PARTS, description="From 1", examples=[1])]
Name = Annotated[str, Meta(min_length=1, max_length=1000, description="Path and controls go", examples=["scans.zip"])]
Size = Annotated[int, Meta(ge=0, description="Bytes, exactly", examples=[8885])]


class DirectOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is going to be sent straight to the object storage."""

    name: Name
    size: Size
    sha256: Sha256 | None = None
    content_type: (
        Annotated[
            str, Meta(max_length=200, description="Where the content does not say it", examples=["application/zip"])
        ]
        | None
    ) = None
    part_size: (
        Annotated[
            int,
            Meta(
                ge=SMALLEST_PART,
                le=LARGEST_PART,
                description="Bytes of every part but the last; more where there would be over 10,000 parts",
                examples=[PART],
            ),
        ]
        | None
    ) = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part and where to PUT it: with exactly this many bytes, as often as it takes, until the upload expires."""

    number: Number
    size: Size
    url: Annotated[
        str,
        Meta(
            description="Presigned, for this length only",
            examples=[
                "https://storage.example.org/millrace/inputs/01994d2e?uploadId=x&partNumber=1&X-Amz-Signature=5f0c"
            ],
        ),
    ]
    etag: Annotated[str | None, Meta(description="Of what the storage has of it", examples=[None])] = None


class DirectUpload(msgspec.Struct, frozen=True, kw_only=True):
    """An upload under way: each part is a PUT to its URL; then it is completed."""

    id: Annotated[FileId, Meta(description="Becomes the file's")]
    name: Name
    size: Size
    part_size: Annotated[int, Meta(description="Bytes of every part but the last", examples=[PART])]
    expires_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T17:41:51.568627Z"])]
    parts: list[Part]


class SentPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part as the client knows it."""

    number: Number
    etag: ETag


class Completion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was sent. Without ``parts`` what the storage has is taken, if it is all there."""

    parts: Annotated[list[SentPart], Meta(max_length=PARTS)] | None = None


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """A part as the storage has it."""

    size: int
    etag: str


def part_size(size: int, asked: int | None) -> int:
    """Bytes of every part but the last, so that there are 10,000 at most."""
    return max(asked or PART, -(-size // PARTS), SMALLEST_PART)


def sizes(size: int, of_part: int) -> list[int]:
    """Of each part in order; an empty file is one empty part."""
    whole, rest = divmod(size, of_part)
    return [of_part] * whole + ([rest] if rest or not whole else [])


def discrepancy(expected: list[int], arrived: Mapping[int, Arrived], sent: list[SentPart] | None) -> str | None:
    """What keeps the upload from being complete, in words; None where nothing does."""
    for number, size in enumerate(expected, 1):
        if number not in arrived:
            return f"part {number} has not arrived"
        if arrived[number].size != size:
            return f"part {number} has {arrived[number].size} bytes and not {size}"
    if len(arrived) > len(expected):
        return f"there are {len(arrived)} parts and not {len(expected)}"
    if sent is None:
        return None
    named = {one.number: one.etag.strip('"') for one in sent}
    if len(named) != len(sent) or named.keys() != arrived.keys():
        return f"`parts` must name each of the {len(expected)} parts once"
    for number, etag in named.items():
        if etag != arrived[number].etag.strip('"'):
            return f"part {number} has another ETag: {arrived[number].etag}"
    return None

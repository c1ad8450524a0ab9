"""Resumable uploads: what one is to a client, and what the headers of tus 1.0.0 say.

https://tus.io/protocols/resumable-upload speaks in headers; ``Upload`` is the same as JSON.
"""

import hashlib
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.errors.uploads import UploadHeader
from domain.files import UNNAMED, File, clean_name, decode_text
from domain.jobs import JobId, JobOrder, read_order

VERSION = "1.0.0"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "checksum",
    "termination",
    "expiration",
    "concatenation",
)
ALGORITHMS = ("sha1", "sha256", "md5")
MEDIA_TYPE = "application/offset+octet-stream"
SOURCES = 1000  # partial uploads of one final upload; their URLs stand in one header

State = Literal["receiving", "finishing", "complete"]
UploadId = Annotated[UUID, Meta(examples=["01994d2e-6a4f-7f12-b6a8-c43e5b7d9012"])]

_number = re.compile(r"[0-9]{1,18}")
_key = re.compile(r"[!-+\--~]+")  # visible ASCII without the comma
_id_at_the_end = re.compile(r"(?:^|/)([0-9a-fA-F-]{36})/?$")


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A resumable upload as its owner sees it."""

    id: UploadId
    state: Annotated[
        State,
        Meta(
            description="`receiving` waits for bytes; `finishing` has them all, and its file is being made, whatever "
            "dies; `complete` has its file",
            examples=["complete"],
        ),
    ]
    offset: Annotated[int, Meta(description="Bytes that are kept; the next PATCH begins here", examples=[8885])]
    length: Annotated[int | None, Meta(description="Bytes of the whole, null until they are said", examples=[8885])]
    partial: Annotated[
        bool, Meta(description="A piece for a final upload; no file is made of it alone", examples=[False])
    ]
    metadata: Annotated[
        dict[str, str], Meta(description="As it was sent, decoded", examples=[{"filename": "scans.zip"}])
    ]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:21.568627Z"])]
    expires_at: Annotated[
        datetime, Meta(tz=True, description="Moved on with every byte", examples=["2025-09-16T11:41:51.568627Z"])
    ]
    file: Annotated[File | None, Meta(description="Null until it is `complete`, and when it has been deleted")]
    job_id: Annotated[
        JobId | None, Meta(description="The job it was ordered with, once it is `complete`", examples=[None])
    ]


# ---------------------------------------------------------------- headers


def number(header: str, value: str | None) -> int | None:
    """A header that is a number of bytes, None where it is not there. Raises UploadHeader."""
    if value is None:
        return None
    if not _number.fullmatch(value):
        raise UploadHeader(field=header, reason="a whole number of bytes is expected")
    return int(value)


def length(length: str | None, deferred: str | None) -> int | None:
    """What Upload-Length and Upload-Defer-Length say together; None is "later".

    Raises:
        UploadHeader: neither or both are there, or one cannot be read.
    """
    if (length is None) == (deferred is None):
        raise UploadHeader(field="Upload-Length", reason="either it or Upload-Defer-Length is needed")
    if deferred not in (None, "1"):
        raise UploadHeader(field="Upload-Defer-Length", reason="the only value is 1")
    return number("Upload-Length", length)


def metadata(header: str) -> dict[str, str]:
    """Upload-Metadata: pairs of a key and a value in base64, parted by commas; a key may stand without a value.

    Raises:
        UploadHeader: a key is twice there or no key, a value is not base64 or holds a NUL.
    """
    found: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        key, _, encoded = pair.strip().partition(" ")
        if not _key.fullmatch(key) or key in found:
            raise UploadHeader(field="Upload-Metadata", reason=f"{key!r} is not a key, or is there twice")
        try:
            value = b64decode(encoded.strip(), validate=True)
        except (NotBase64, ValueError):
            raise UploadHeader(field="Upload-Metadata", reason=f"the value of {key} is not base64") from None
        if b"\0" in value:  # no text column can hold it
            raise UploadHeader(field="Upload-Metadata", reason=f"the value of {key} holds a NUL character")
        found[key] = decode_text(value)
    return found


def checksum(header: str | None) -> tuple[str, bytes] | None:
    """Upload-Checksum: the name of an algorithm and the digest.

    Raises:
        UploadHeader: the algorithm is not one of ALGORITHMS, or the digest is not one of it in base64.
    """
    if header is None:
        return None
    algorithm, _, encoded = header.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise UploadHeader(field="Upload-Checksum", reason=f"the algorithms are {', '.join(ALGORITHMS)}")
    try:
        digest = b64decode(encoded.strip(), validate=True)
    except (NotBase64, ValueError):
        digest = b""
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise UploadHeader(field="Upload-Checksum", reason=f"it is not a digest of {algorithm} in base64")
    return algorithm, digest


def sources(header: str | None) -> list[UUID] | None:
    """Upload-Concat: the ids a final upload is made of; none for a partial one, None where it is neither.

    Raises:
        UploadHeader: it is neither `partial` nor `final;` with URLs of uploads.
    """
    if header is None:
        return None
    if header.strip() == "partial":
        return []
    kind, _, urls = header.strip().partition(";")
    found = [match for url in urls.split() if (match := _id_at_the_end.search(url))]
    if kind != "final" or not 0 < len(found) == len(urls.split()) <= SOURCES:
        raise UploadHeader(field="Upload-Concat", reason="`partial`, or `final;` and the URLs of uploads, is expected")
    try:
        return [UUID(match[1]) for match in found]
    except ValueError:
        raise UploadHeader(field="Upload-Concat", reason="a URL is not that of an upload") from None


# ---------------------------------------------------------------- what the metadata asks for


def name_of(metadata: Mapping[str, str]) -> str:
    """What the file is called: `filename`, or `name` as Uppy has it."""
    return clean_name(metadata.get("filename") or metadata.get("name") or "") or UNNAMED


def type_of(metadata: Mapping[str, str]) -> str | None:
    """What the client says the file is: `filetype`, or `type` as Uppy has it."""
    return metadata.get("filetype") or metadata.get("type")


def order_of(metadata: Mapping[str, str]) -> JobOrder | None:
    """The job it asks for at completion: `job` is its kind, the rest has the names of POST /jobs.

    Raises:
        Invalid: a value cannot be read.
    """
    if not metadata.get("job"):
        return None
    fields = {name: metadata[name] for name in JobOrder.__struct_fields__ if name in metadata and name != "filename"}
    return read_order({**fields, "kind": metadata["job"]})

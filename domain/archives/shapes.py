"""What an inspection takes and gives."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is still accepted; everything above is refused. Sizes are bytes."""

    max_entries: int = 100_000
    max_unpacked_bytes: int = 50 * 1024**3
    max_ratio: int = 200  # unpacked to packed, of each entry and of the whole
    ratio_floor_bytes: int = 10 * 1024**2  # what unpacks to no more than this is never judged by its ratio
    max_name_bytes: int = 1024
    max_depth: int = 32  # folders within folders
    max_directory_bytes: int = 32 * 1024**2  # held in memory at once, together with any prefix before the archive
    refuse: frozenset[str] = frozenset()  # words of warnings that are refusals here


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the central directory (APPNOTE 4.3.12). Sizes are bytes, as declared."""

    index: int  # place in the directory, from 0
    name: str  # decoded, otherwise untouched: a folder keeps its closing slash
    raw_name: bytes
    size: int
    compressed_size: int
    crc32: int
    method: str  # "stored", "deflated", "bzip2", "lzma"
    modified_at: datetime | None  # the writer's local time, to 2 s; None where the stored date does not exist
    is_folder: bool
    encrypted: bool  # always False in a listing: an encrypted archive is refused
    header_offset: int  # of the local header, from the start of the file, any prefix included
    flags: int  # general purpose bits, APPNOTE 4.4.4
    host: int  # system of the writer, APPNOTE 4.4.2: 0 is DOS, 3 Unix
    attributes: int  # external attributes; the upper 16 bits are the Unix mode
    content_type: str | None  # guessed from the extension; None for folders and unknown extensions

    @property
    def unix_mode(self) -> int:
        """Type and permission bits as in ``stat.st_mode``; 0 where the writer left none."""
        return self.attributes >> 16


class DicomSeries(msgspec.Struct, frozen=True):
    """A series of DICOM images; empty where the files do not say."""

    study_uid: Annotated[str, Meta(examples=["1.2.826.0.1.3680043.8.498.1"])]
    series_uid: Annotated[str, Meta(examples=["1.2.826.0.1.3680043.8.498.1.2"])]
    modality: Annotated[str, Meta(description="DICOM (0008,0060)", examples=["CT"])]
    body_part: Annotated[str, Meta(description="DICOM (0018,0015)", examples=["CHEST"])]
    slices: Annotated[int, Meta(description="Images; a file of several frames counts each", examples=[312])]


class DicomSummary(msgspec.Struct, frozen=True):
    """What the DICOM files of an archive are, by their headers."""

    files: Annotated[int, Meta(description="Members that are DICOM, each image once", examples=[312])]
    unreadable: Annotated[int, Meta(description="Members named like DICOM whose header cannot be read", examples=[0])]
    complete: Annotated[
        bool, Meta(description="False where only the first `DICOM_MAX_MEMBERS` were looked at", examples=[True])
    ]
    studies: Annotated[int, Meta(examples=[1])]
    series: Annotated[int, Meta(examples=[1])]
    slices: Annotated[int, Meta(description="Images in all series", examples=[312])]
    modalities: Annotated[list[str], Meta(examples=[["CT"]])]
    body_parts: Annotated[list[str], Meta(examples=[["CHEST"]])]
    by_series: Annotated[list[DicomSeries], Meta(description="The first 200")]


class Summary(msgspec.Struct, frozen=True):
    """The archive as a whole. Sizes are bytes and count members only, without headers and directory."""

    entries: Annotated[int, Meta(examples=[3])]
    files: Annotated[int, Meta(examples=[3])]
    folders: Annotated[int, Meta(examples=[0])]
    size: Annotated[int, Meta(examples=[22151])]
    compressed_size: Annotated[int, Meta(examples=[8545])]
    ratio: Annotated[
        float, Meta(description="`size` / `compressed_size`; 0 for an archive without data", examples=[2.59])
    ]
    zip64: Annotated[bool, Meta(examples=[False])]
    comment: Annotated[str, Meta(examples=[""])]
    warnings: Annotated[
        list[str],
        Meta(
            description="`word: sentence`, at most one of each word",
            examples=[["backslash: a name has backslashes, which some programs take for folders"]],
        ),
    ]
    directory_offset: Annotated[
        int, Meta(description="Bytes from the start of the file: no member reaches beyond it", examples=[8680])
    ]
    dicom: Annotated[DicomSummary | None, Meta(description="Null where no member is DICOM")] = None


class Listing(msgspec.Struct, frozen=True):
    """Every entry in directory order, read anew each time they are gone through, and their summary."""

    entries: Sequence[Entry]
    summary: Summary


def shown(name: str | bytes) -> str:
    """A hostile name made fit for messages, logs and JSONB (which takes no NUL): printable, at most 120 characters."""
    text = name if isinstance(name, str) else name[:500].decode("utf-8", "backslashreplace")
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:121])
    return clean if len(clean) <= 120 else clean[:119] + "…"

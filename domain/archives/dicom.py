"""What DICOM members are: studies, series, slices, modality and body part, from the first bytes of each.

Only what stands before the pixels is looked at, and of a packed member only as much is unpacked; what is deflated once
more inside (DICOM PS3.5, A.5) likewise. pydicom reads the headers (PS3.10, section 7.1: 128 bytes, `DICM`, then
elements in ascending order of their tags).
"""

import io
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from domain.archives.members import Member, Unpacking
from domain.archives.shapes import DicomSeries, DicomSummary, Entry, shown
from domain.errors.archives import MemberDamaged

HEAD_BYTES = 16 * 1024  # of a member, packed: patient, study and series stand well within
_UNPACKED_BYTES = 64 * 1024
_FRAMES_MOST = 100_000  # of one file; the longest of true ones have some thousands
_SERIES_MOST = 200  # listed one by one
_LAST_TAG = 0x00280008  # NumberOfFrames, the last that is wanted
# SOPInstanceUID, Modality, BodyPartExamined, StudyInstanceUID, SeriesInstanceUID, NumberOfFrames
_TAGS: list[Any] = [0x00080018, 0x00080060, 0x00180015, 0x0020000D, 0x0020000E, 0x00280008]
# transfer syntaxes (PS3.5, 10) that are not explicit and little endian
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
# scanners write files without an extension, or named by an UID whose last number looks like one
_NAMED = re.compile(r"\.(?:dcm|dicom|ima)$", re.IGNORECASE)
_NAMELESS = re.compile(r"(?:^|/)(?:[^./]+|[^/]*\.\d+)$")


def candidates(entries: Iterable[Entry], limit: int) -> tuple[list[Member], int]:
    """(at most ``limit`` members that may be DICOM, those named so first; how many there are in all)."""
    named: list[Member] = []
    nameless: list[Member] = []
    total = 0
    for entry in entries:
        if entry.is_folder or not entry.size or entry.name.rpartition("/")[2].upper() == "DICOMDIR":
            continue
        kept = named if is_named_dicom(entry.name) else nameless if _NAMELESS.search(entry.name) else None
        if kept is not None:
            total += 1
            if len(kept) < limit:
                kept.append(Member.of(entry))
    return (named + nameless)[:limit], total


def is_named_dicom(name: str) -> bool:
    return bool(_NAMED.search(name))


class Slice(msgspec.Struct, frozen=True):
    """One DICOM file."""

    study_uid: str
    series_uid: str
    instance_uid: str
    modality: str
    body_part: str
    frames: int
    doubtful: bool = False  # it says more frames than it can hold, and counts as one


def read_slice(member: Member, head: bytes) -> Slice | None:
    """The member by the ``head`` of its bytes in the archive, its local header first; None for what is no DICOM.

    Raises:
        Exception: of any kind, for what begins like DICOM and cannot be read.
    """
    start = member.data_offset(head[: member.head_bytes]) - member.header_offset
    data = _beginning(member, head[start : start + member.compressed_size])
    if data[128:132] != b"DICM":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other writers do to the standard is no concern of the log
        found = _elements(data)
    series = _text(found, "SeriesInstanceUID")
    if not series:
        raise ValueError("no series")
    frames = max(1, int(float(_text(found, "NumberOfFrames") or 1)))
    doubtful = frames > min(_FRAMES_MOST, member.size)  # a frame takes more than a byte
    return Slice(
        study_uid=shown(_text(found, "StudyInstanceUID")),
        series_uid=shown(series),
        instance_uid=shown(_text(found, "SOPInstanceUID") or member.name),
        modality=shown(_text(found, "Modality")),
        body_part=shown(_text(found, "BodyPartExamined")),
        frames=1 if doubtful else frames,
        doubtful=doubtful,
    )


def _elements(data: bytes) -> Any:
    """The wanted elements of a file that may be cut anywhere, as pydicom's ``Dataset``.

    Not by ``pydicom.dcmread``, which inflates a deflated data set (PS3.5, A.5) to whatever it becomes and all at once.
    """
    from pydicom.filereader import read_dataset  # a quarter of a second, which only archives with DICOM pay

    file = io.BytesIO(_without_character_sets(data))
    file.seek(132)
    meta: Any = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax, body = _text(meta, "TransferSyntaxUID"), file.read()
    if syntax == _DEFLATED:
        # what the window has cut off is not missed: an inflater that is asked for less does not complain
        body = zlib.decompressobj(-15).decompress(data[-len(body) :], _UNPACKED_BYTES) if body else b""
        body = _without_character_sets(body)
    implicit = syntax == _IMPLICIT or not (syntax or body[4:6].isalpha())
    return read_dataset(
        io.BytesIO(body),
        implicit,
        syntax != _BIG_ENDIAN,
        stop_when=lambda tag, vr, length: tag > _LAST_TAG,
        specific_tags=_TAGS,
    )


def _without_character_sets(data: bytes) -> bytes:
    """(0008,0005) under a number that means nothing: what is wanted is ASCII (PS3.5, 6.2: CS, IS, UI).

    pydicom looks up every one of thousands of made-up names: half a second for 60 KB, and Python never forgets them.
    """
    return data.replace(b"\x08\0\x05\0", b"\x08\0\x07\0").replace(b"\0\x08\0\x05", b"\0\x08\0\x07")


def _text(found: Any, keyword: str) -> str:
    """As it stands in the file: several values with backslashes between them. Raises ValueError where it is cut."""
    from pydicom.dataelem import RawDataElement

    element = found.get_item(keyword)
    if element is None:
        return ""
    if not isinstance(element, RawDataElement) or len(element.value or b"") != element.length:
        raise ValueError(f"{keyword} is cut or no text")
    return (element.value or b"").decode("ascii", "replace").strip(" \0")


def _beginning(member: Member, packed: bytes) -> bytes:
    """The first bytes of the member, as far as they come out of ``packed``."""
    if member.method == "stored":
        return packed
    if member.method == "deflated":
        return zlib.decompressobj(-15).decompress(packed, _UNPACKED_BYTES)
    data = b""
    try:
        for piece in Unpacking(member).feed(packed):
            data += piece
            if len(data) >= _UNPACKED_BYTES:
                break
    except MemberDamaged:
        pass  # up to there it may suffice
    return data[:_UNPACKED_BYTES]


def summarized(slices: Iterable[Slice], *, candidates: int, read: int, unreadable: int) -> DicomSummary | None:
    """None where no member turned out to be DICOM."""
    by_series: dict[tuple[str, str], dict[str, Slice]] = {}
    for one in slices:
        by_series.setdefault((one.study_uid, one.series_uid), {})[one.instance_uid] = one
    if not by_series and not unreadable:
        return None
    series = list(_series(by_series))
    return DicomSummary(
        files=sum(len(found) for found in by_series.values()),
        unreadable=unreadable,
        complete=read == candidates,
        studies=len({study for study, _ in by_series}),
        series=len(by_series),
        slices=sum(one.slices for one in series),
        modalities=sorted({one.modality for one in series} - {""}),
        body_parts=sorted({one.body_part for one in series} - {""}),
        by_series=series[:_SERIES_MOST],
    )


def _series(by_series: dict[tuple[str, str], dict[str, Slice]]) -> Iterator[DicomSeries]:
    for (study, series), found in by_series.items():
        one = next(iter(found.values()))
        yield DicomSeries(
            study_uid=study,
            series_uid=series,
            modality=one.modality,
            body_part=one.body_part,
            slices=sum(each.frames for each in found.values()),
        )

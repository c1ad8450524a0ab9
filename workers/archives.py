"""The step `inspect`: what is in the uploaded archive, read from its directory; DICOM members from their headers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import structlog
from msgspec.structs import replace

from domain.archives import (
    Limits,
    Listing,
    Member,
    dicom,
    ends_like_zip,
    inspect,
    is_zip_name,
    may_extract_itself,
    walking,
)
from domain.archives.deep import compare_local_headers
from domain.archives.ends import TAIL_BYTES
from domain.errors import MillraceError
from domain.errors.archives import ArchiveAgainstPolicy
from domain.jobs import Inspection
from domain.pipelines import Context, Done, InputFile, JobInStep, Outcome
from storage import archives, objects
from storage.configuration import settings

HEADER_SECONDS = 120.0  # of reading local headers; the rest is not compared then, and a warning says so
DICOM_SECONDS = 30.0  # then the summary is made of what has been read
_READS_TO_NAME = 1000  # of local headers, where those that went by in the upload are not what the directory says
_AT_ONCE = 8  # reads of headers: each is short and mostly waiting
_TWO_READINGS = "two_readings: who reads from the beginning finds other members than the directory names"
_NAMELESS_MOST = 16  # members without a telling name that are no DICOM, after which the others are not tried

_log = structlog.get_logger()


def inspect_archive(job: JobInStep, context: Context) -> Outcome:
    """List a ZIP by ranged reads of its end; a single file passes through, but for a program with an archive in it.

    Raises:
        ArchiveRefused: by its subclasses, when the archive is not safe to hand on.
    """
    file, config = job.file, settings()
    if file is None:
        return Done()
    if file.kind != "zip" and not _is_archive_all_the_same(file):
        return Done(message="1 file")
    asked = _reads_on_order(job)
    parts = 1 + bool(asked) + bool(config.dicom_max_members)
    listing = inspect(
        partial(objects.read_range, file.key),
        file.size,
        _limits(),
        lambda done, total: context.progress(done, total, f"{done} of {total} entries", part=(1, parts)),
    )
    if reads := _reads_of_headers(file, listing, asked):
        unseen = _compare(file, listing, reads, context, parts)
    else:
        unseen = _unseen(file, listing)
    if unseen:
        listing = _with_warning(listing, unseen)
    if file.local_headers and not walking.agrees(file.local_headers, listing.entries):
        listing = _with_warning(listing, _TWO_READINGS, config.refused_warnings)
    if config.dicom_max_members:
        listing = _with_dicom(file, listing, config.dicom_max_members, context, parts)
    return Done(
        message=f"{listing.summary.files} files in the archive",
        effects=(partial(archives.store, job_id=job.id, listing=listing),),
    )


def _is_archive_all_the_same(file: InputFile) -> bool:
    """Of a file that does not begin like an archive: named as one, or a program or script that ends like one."""
    if is_zip_name(file.name):
        return True
    if not file.size:
        return False
    read = partial(objects.read_range, file.key)
    return may_extract_itself(read(0, min(4, file.size))) and ends_like_zip(read, file.size)


def _reads_on_order(job: JobInStep) -> int:
    """How many reads may be spent on the members' own headers, by the settings and by the order."""
    config = settings()
    asked = job.params.get("inspection") == Inspection.DEEP
    return max(config.archive_deep_reads, config.archive_deep_reads_on_request if asked else 0)


def _reads_of_headers(file: InputFile, listing: Listing, reads: int) -> int:
    """How many of ``reads`` there is a need for; none where all headers went by in the upload."""
    if (went_by := file.local_headers) is None:
        return reads
    if not walking.agrees(went_by, listing.entries):
        return max(reads, _READS_TO_NAME)
    return 0 if walking.covers(went_by, listing.summary.directory_offset) else reads


def _unseen(file: InputFile, listing: Listing) -> str | None:
    """The warning that not all headers were seen: neither in the end of the file nor in the upload."""
    if file.size <= TAIL_BYTES or not listing.entries:
        return None
    went_by = file.local_headers
    if went_by is not None and walking.reached(went_by, listing.summary.directory_offset):
        return None
    seen = walking.count(went_by) if went_by else 0
    return f"local_headers: only {seen} of {len(listing.entries)} went by in the upload; the rest was not compared"


def _compare(file: InputFile, listing: Listing, reads: int, context: Context, parts: int) -> str | None:
    def read(start: int, length: int) -> bytes:
        context.checkpoint()
        return objects.read_range(file.key, start, length)

    return compare_local_headers(
        read,
        file.size,
        listing,
        reads,
        HEADER_SECONDS,
        lambda at, size: context.progress(at, size, _compared(at, size), part=(2, max(2, parts))),
    )


def _with_dicom(file: InputFile, listing: Listing, most: int, context: Context, parts: int) -> Listing:
    """The listing with what its DICOM members are; whatever is wrong with them is a warning."""
    members, total = dicom.candidates(listing.entries, most)
    slices: list[dicom.Slice] = []
    read = unreadable = in_vain = 0
    first_unreadable = ""
    try:
        for member, head in _heads(file, members, time.monotonic() + DICOM_SECONDS):
            context.progress(read, len(members), f"{read} of {len(members)} DICOM headers", part=(parts, parts))
            read += 1
            try:
                found = dicom.read_slice(member, head)
                lost = found is None and dicom.is_named_dicom(member.name)
            except Exception:  # a library's on a hostile file: any kind
                found, lost = None, True
            if found:
                slices.append(found)
            elif lost:
                unreadable += 1
                first_unreadable = first_unreadable or member.name
            else:
                in_vain += 1
            if in_vain == _NAMELESS_MOST and not slices:
                total = read  # an archive of files without extensions, not of DICOM
                break
    except MillraceError as error:  # the storage's; without this summary the job goes on all the same
        _log.warning("dicom_not_read", code=error.code)
    summary = dicom.summarized(slices, candidates=total, read=read, unreadable=unreadable)
    listing = Listing(entries=listing.entries, summary=replace(listing.summary, dicom=summary))
    told = []
    if unreadable:
        told.append(f"{unreadable} members, the first {first_unreadable!r}, cannot be read")
    if doubtful := sum(one.doubtful for one in slices):
        told.append(f"{doubtful} members say more frames than they can hold, and count as one each")
    return _with_warning(listing, f"dicom: {'; '.join(told)}") if told else listing


def _heads(file: InputFile, members: list[Member], until: float) -> Iterator[tuple[Member, bytes]]:
    def head(member: Member) -> bytes:
        length = member.head_bytes + min(dicom.HEAD_BYTES, member.compressed_size + 1024)
        return objects.read_range(file.key, member.header_offset, min(length, file.size - member.header_offset))

    rest = iter(members)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while (batch := list(islice(rest, 4 * _AT_ONCE))) and time.monotonic() < until:
            for found in zip(batch, pool.map(head, batch), strict=True):
                if time.monotonic() >= until:
                    return
                yield found


def _compared(at: int, size: int) -> str:
    return f"headers compared: {at // 10**6} of {size // 10**6} MB"


def _with_warning(listing: Listing, warning: str, refused: frozenset[str] = frozenset()) -> Listing:
    word, _, sentence = warning.partition(": ")
    if word in refused:
        raise ArchiveAgainstPolicy(rule=word, reason=sentence)
    warnings = sorted([*listing.summary.warnings, warning])
    return Listing(entries=listing.entries, summary=replace(listing.summary, warnings=warnings))


def _limits() -> Limits:
    config = settings()
    return Limits(
        max_entries=config.archive_max_entries,
        max_unpacked_bytes=config.archive_max_unpacked_bytes,
        max_ratio=config.archive_max_ratio,
        max_directory_bytes=config.archive_max_directory_bytes,
        max_depth=config.archive_max_depth,
        refuse=config.refused_warnings,
    )


steps = {"inspect": inspect_archive}

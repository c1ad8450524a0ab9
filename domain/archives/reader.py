"""One inspection from the first read to the listing."""

from collections.abc import Callable

from domain.archives.directory import Directory, read_directory
from domain.archives.ends import CENTRAL, END, END64, LOCAL, SPAN_MARKERS, End, find_end
from domain.archives.entries import Entries
from domain.archives.layout import check_layout, check_totals
from domain.archives.names import comment_text
from domain.archives.paths import Paths
from domain.archives.ranges import RangeReader, Ranges
from domain.archives.shapes import Limits, Listing, Summary
from domain.errors.archives import ArchiveAgainstPolicy, ArchiveBomb, ArchiveRefused, ArchiveTwoDirectories


def inspect(
    read: RangeReader,
    size: int,
    limits: Limits = Limits(),  # noqa: B008 frozen
    counted: Callable[[int, int], None] | None = None,
) -> Listing:
    """List an archive of ``size`` bytes and refuse what is not safe to hand on.

    Takes at most 3 reads, two for most archives and one below 128 KiB: the last 128 KiB, the directory, and the head of
    a file whose first member does not begin it. What ``read`` itself raises passes through. ``counted(done, total)`` is
    called as the entries are read.

    Raises:
        ArchiveRefused: by its subclasses, as the table in ``domain.archives`` says.
    """
    ranges = Ranges(read, size)
    end = find_end(ranges, limits)
    # with a prefix the directory is read from where it would lie without one, to see whether another lies there
    begin = end.directory - end.prefix
    data = ranges.read(begin, end.prefix + end.directory_size) if end.directory_size else b""
    _check_other_directory(data, end)
    data = data[end.prefix :]
    found = Directory(entries=Entries(data, end.entries, end.prefix))
    paths = Paths(found.entries, limits, found.warnings)
    for chunk in read_directory(data, found, end, limits):
        paths.add(chunk)
        if counted:
            counted(chunk.index + chunk.count, end.entries)
    paths.close()
    check_totals(found, limits)
    check_layout(found, end, ranges)
    for word in sorted(limits.refuse & found.warnings.keys()):
        raise ArchiveAgainstPolicy(rule=word, reason=found.warnings[word])
    return Listing(entries=found.entries, summary=_summary(found, end))


def _check_other_directory(data: bytes, end: End) -> None:
    """Readers that take offsets literally must not find another directory in front of the one judged here."""
    if end.prefix and (data.startswith(CENTRAL) or data.startswith(END64, end.directory_size)):
        raise ArchiveTwoDirectories(reason="one directory lies in front of the other")


def _summary(found: Directory, end: End) -> Summary:
    return Summary(
        entries=len(found.entries),
        files=len(found.entries) - found.folders,
        folders=found.folders,
        size=found.size,
        compressed_size=found.compressed_size,
        ratio=round(found.size / found.compressed_size, 2) if found.compressed_size else 0.0,
        zip64=end.zip64,
        comment=comment_text(end.comment),
        warnings=[f"{word}: {sentence}" for word, sentence in sorted(found.warnings.items())],
        directory_offset=end.directory,
    )


def looks_like_zip(head: bytes) -> bool:
    """Whether a file's first 4 bytes are those of an archive: a local header, an empty archive or a spanning marker."""
    return head.startswith((LOCAL, END, *SPAN_MARKERS))


def may_extract_itself(head: bytes) -> bool:
    """Whether a file's first 4 bytes are those of a program or a script, which an archive may follow."""
    return head.startswith((b"MZ", b"\x7fELF", b"#!"))


def ends_like_zip(read: RangeReader, size: int) -> bool:
    """Whether a file closes with a sound end of directory, whatever it begins with. One read of 128 KiB."""
    try:
        find_end(Ranges(read, size), Limits())
    except ArchiveBomb:
        return True  # the inspection refuses it by its code
    except ArchiveRefused:
        return False
    return True


def is_zip_name(name: str) -> bool:
    """Whether a file's name says that it is a ZIP archive."""
    return name.lower().endswith(".zip")

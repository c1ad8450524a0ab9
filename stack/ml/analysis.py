"""From a downloaded file to rows: every member of an archive, or the one file, and what it truly is."""

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import msgspec
from magika import Magika

from domain.archives import names
from stack.ml.configuration import Settings
from stack.ml.endings import CannotInfer
from stack.ml.expectations import Expectations

# magika reads this much from either end and nothing between (its `block_size`), so head + tail give the same answer
BLOCK = 4096
_CHUNK = 256 * 1024
_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
# what zipfile lets out for damaged, encrypted or exotic archives: it wraps hardly anything
_ZIP_TROUBLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


class Row(msgspec.Struct, frozen=True):
    """One file. ``size`` is in bytes, unpacked; ``score`` is the model's confidence, 0-1; ``expected_type`` is '' for
    an extension that promises nothing."""

    path: str
    size: int
    detected_type: str
    mime_type: str
    description: str
    score: float
    expected_type: str
    flagged: bool


class Analyst:
    """Loads the model (about 0.2 s, 30 MB) and looks at files with it. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._magika = Magika()
        self._expectations = Expectations(str(label) for label in self._magika.get_output_content_types())

    def analyse(self, file: IO[bytes], name: str, threshold: float, watch: Callable[[int, int], None]) -> list[Row]:
        """A row for each member, in the archive's order, or one row for a file that is not an archive.

        ``watch(done, total)`` is called before the first file and after each; what it raises ends the analysis.

        Raises:
            CannotInfer: the archive is damaged or larger than the limits.
        """
        archive = _open(file)
        if archive is None:
            watch(0, 1)
            sample, size = _ends(file)
            row = self.look(name, sample, size, threshold)
            watch(1, 1)
            return [row]
        with archive:
            return list(self._members(archive, threshold, watch))

    def look(self, path: str, sample: bytes, size: int, threshold: float) -> Row:
        """The row of one file, of which ``sample`` is the whole or the first and the last ``BLOCK`` bytes."""
        found = self._magika.identify_bytes(sample)
        detected = str(found.output.label)
        return Row(
            path=path,
            size=size,
            detected_type=detected,
            mime_type=found.output.mime_type,
            description=found.output.description,
            score=round(found.score, 4),
            expected_type=self._expectations.expected_type(path),
            flagged=found.score >= threshold and self._expectations.contradicts(path, detected),
        )

    def _members(self, archive: zipfile.ZipFile, threshold: float, watch: Callable[[int, int], None]) -> Iterator[Row]:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > self._settings.ml_max_members:
            raise CannotInfer(f"the archive holds {len(members)} files, more than {self._settings.ml_max_members}")
        left = self._settings.ml_max_unpacked
        watch(0, len(members))
        for done, (member, path) in enumerate(zip(members, _paths(members), strict=True), start=1):
            try:
                sample, read = _sample(archive, member, min(self._settings.ml_max_member, left))
            except _ZIP_TROUBLE as error:
                # one bad member is one row that says so: the others are still worth knowing
                yield self._unreadable(path, member, error)
            else:
                left -= read
                yield self.look(path, sample, max(read, member.file_size), threshold)
            if left <= 0:
                raise CannotInfer(f"the archive unpacks to more than {self._settings.ml_max_unpacked} bytes")
            watch(done, len(members))

    def _unreadable(self, path: str, member: zipfile.ZipInfo, error: Exception) -> Row:
        encrypted = bool(member.flag_bits & _ENCRYPTED_FLAG)
        return Row(
            path=path,
            size=member.file_size,
            detected_type="encrypted" if encrypted else "unreadable",
            mime_type="application/octet-stream",
            description="Encrypted, not looked at" if encrypted else f"Damaged: {type(error).__name__}",
            score=0.0,
            expected_type=self._expectations.expected_type(path),
            flagged=False,
        )


def _open(file: IO[bytes]) -> zipfile.ZipFile | None:
    """The archive, or None for a file that is to be looked at as one.

    Raises:
        CannotInfer: it is a ZIP archive whose directory cannot be read.
    """
    file.seek(0)
    # a ZIP may follow anything (a program that unpacks itself); only what is one from its first byte is an archive here
    if file.read(2) != b"PK" or not zipfile.is_zipfile(file):
        return None
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_TROUBLE as error:
        raise CannotInfer(f"the archive's directory cannot be read ({type(error).__name__})") from None
    return None if _is_package(archive.namelist()) else archive


def _is_package(members: list[str]) -> bool:
    """Whether it is one document or program that merely comes as a ZIP: Office (OPC), OpenDocument, EPUB, JAR, APK."""
    first = members[:2]
    return (
        first[:1] == ["mimetype"]  # must be first and stored: ODF 1.3 part 2, 3.3; EPUB OCF 3.3, 4.3
        or "META-INF/MANIFEST.MF" in first
        or "[Content_Types].xml" in members
        or {"AndroidManifest.xml", "classes.dex"} <= set(members)
    )


def _ends(file: IO[bytes]) -> tuple[bytes, int]:
    """The sample of a file that can be sought in, and its size: two reads, however large it is."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size <= 2 * BLOCK:
        return file.read(), size
    head = file.read(BLOCK)
    file.seek(size - BLOCK)
    return head + file.read(BLOCK), size


def _sample(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> tuple[bytes, int]:
    """The sample of a member and how many bytes were unpacked for it, at most ``limit``.

    Of a member beyond the limit the last block read stands in for its end: the size in its header is only a claim.
    """
    with archive.open(member) as stream:
        head = stream.read(min(2 * BLOCK, limit))
        tail, size = head, len(head)
        while size < limit and (chunk := stream.read(min(_CHUNK, limit - size))):
            size += len(chunk)
            tail = (tail + chunk)[-BLOCK:]
    return (head, size) if size == len(head) else (head[:BLOCK] + tail[-BLOCK:], size)


def _paths(members: list[zipfile.ZipInfo]) -> Iterator[str]:
    """The members' names as text. zipfile reads names without the UTF-8 flag as cp437, which Russian ones never are."""
    unmarked = {
        index: member.orig_filename.encode("cp437")
        for index, member in enumerate(members)
        if not member.flag_bits & _UTF8_FLAG and not member.orig_filename.isascii()
    }
    page = names.code_page(unmarked.values(), members[0].create_system) if unmarked else ""
    for index, member in enumerate(members):
        yield printable(_decoded(unmarked[index], page) if index in unmarked else member.filename)


def _decoded(raw: bytes, page: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return names.decode(raw, page)


def printable(name: str) -> str:
    """The name without what a spreadsheet's XML cannot hold: controls, lone surrogates, non-characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)

"""XLSX in: nothing reaches calamine that has not been measured first.

calamine is fast, and trusting: it lays a sheet out as a dense grid, so two cells in opposite corners (a file of 5 kB)
ask for 512 GiB, which *aborts the process* instead of raising (tafia/calamine #693); and it copies a shared string into
every cell that names it. So the package is unpacked here, within limits, its sheets are measured, and what was measured
is packed anew: two ZIP readers that disagree about a hostile archive then have nothing left to disagree about.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from domain.errors.inference import ResultUnreadable
from domain.results.grid import column_number, grid_of, lengths_of_strings

WORKBOOK = "xl/workbook.xml"
MAX_ENTRIES = 10_000
MAX_UNPACKED = 256 * 1024**2  # bytes of XML; 100,000 rows by 10 columns are about 50 MB
MAX_RATIO = 200  # unpacked to packed; sheets reach 30, deflate's own limit is 1032
MAX_CELLS = 16_000_000  # of the dense grid, 32 bytes each in calamine: 512 MB
MAX_TEXT = 512 * 1024**2  # bytes of shared strings once every cell has its own copy
GRID = (1_048_576, 16_384)  # rows, columns: ECMA-376 ends at XFD1048576

# Parts of a package that calamine does not need; leaving them out keeps their look-alike references out of the measure.
_UNREAD = re.compile(r"xl/(calcchain\.xml|(drawings|charts|theme|comments|pivot\w+|tables|externallinks|media)/)")
_PLAIN_CELL = re.compile(rb'<c r="([A-Z]{1,9})([0-9]{1,9})"')
_PREFIXED_CELL = re.compile(rb"<[^\s<>/:]+:c[\s/>]")
_INDEX = re.compile(rb">\s*[+0]*([0-9]{1,9})")
_ERROR_CELL = re.compile(rb"(<c [^>]*\bt=)\"e\"")


def is_workbook(data: bytes) -> bool:
    """Whether the bytes are a ZIP archive holding ``xl/workbook.xml``.

    Raises:
        ResultUnreadable: they begin like a ZIP archive but have no readable directory.
    """
    with _open(data) as archive:
        return any(_plain_name(name).lower() == WORKBOOK for name in archive.namelist())


def read_rows(data: bytes, tall: Callable[[int], None] = lambda rows: None) -> Iterator[list[Any]]:
    """The rows of the first visible worksheet from its row 1, blank ones included.

    A cell is text ('' when blank), float, bool, ``date``, ``datetime``, ``time`` or ``timedelta``; Excel's own errors
    come as their text (``#DIV/0!``), which calamine alone would turn into blanks. ``tall`` is told how many rows there
    are before the first one is given.

    Raises:
        ResultUnreadable: the package is damaged, encrypted, larger than the limits, or not a workbook.
    """
    measured = _repack(data)
    try:
        with CalamineWorkbook.from_filelike(measured) as workbook:
            del measured  # calamine has its own copy
            sheet = _first_sheet(workbook)
            tall(sheet.end[0] + 1 if sheet.end else 0)  # its `total_height` leaves the last one out
            yield from sheet.iter_rows()
    except (CalamineError, ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
        raise ResultUnreadable(reason=f"not a readable XLSX workbook ({str(error)[:200]})") from None
    except BaseException as error:
        # A Rust panic is a BaseException that cannot be imported. Nothing else is caught here: a worker being stopped
        # or running out of memory has not found an unreadable file.
        if type(error).__name__ != "PanicException":
            raise
        raise ResultUnreadable(reason="not a readable XLSX workbook (its reader gave up)") from None


def _first_sheet(workbook: CalamineWorkbook) -> CalamineSheet:
    for sheet in workbook.sheets_metadata:
        if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible:
            return workbook.get_sheet_by_name(sheet.name)
    raise ResultUnreadable(reason="the workbook has no visible worksheet")


def _open(data: bytes) -> zipfile.ZipFile:
    if data.count(b"PK\x01\x02") > MAX_ENTRIES:  # before zipfile makes an object of each: 430 B and 4 µs apiece
        raise ResultUnreadable(reason=f"the XLSX package has more than {MAX_ENTRIES} entries")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ArithmeticError, LookupError, OSError, RuntimeError, ValueError) as error:
        raise ResultUnreadable(reason=f"the ZIP archive (XLSX) is damaged or cut short: {error}") from None


def _plain_name(name: str) -> str:
    return name.replace("\\", "/").lstrip("/")  # some writers use backslashes, and calamine puts up with it


def _repack(data: bytes) -> io.BytesIO:
    """The parts calamine reads, measured, in a new uncompressed package."""
    measured, seen, room = io.BytesIO(), set[str](), MAX_UNPACKED
    strings, cells, sheets = b"", 0, list[bytes]()
    with _open(data) as archive, zipfile.ZipFile(measured, "w", zipfile.ZIP_STORED) as new:
        for info in archive.infolist():
            name = _plain_name(info.filename)
            folded = name.lower()
            if not folded.endswith((".xml", ".rels")) or _UNREAD.match(folded):
                continue
            if folded in seen:
                raise ResultUnreadable(reason=f"the XLSX package holds {name[:100]!r} twice")
            seen.add(folded)
            part = _unpack(archive, info, room)
            room -= len(part)
            # any part may be a sheet, if a relationship calls it so
            if found := _measure(part, name):
                part = _ERROR_CELL.sub(rb'\1"str"', part) if b't="e"' in part else part
                cells += found
                sheets.append(part)
            if folded == "xl/sharedstrings.xml":
                strings = part
            new.writestr(zipfile.ZipInfo(name), part)
    _check_text(strings, cells, sheets)
    measured.seek(0)
    return measured


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: int) -> bytes:
    """One part, never more than ``room`` bytes of it, whatever its header declares."""
    if info.file_size > room:
        raise ResultUnreadable(reason=f"the workbook unpacks to more than {MAX_UNPACKED // 1024**2} MiB")
    if info.file_size > max(1024**2, MAX_RATIO * info.compress_size):
        raise ResultUnreadable(reason=f"the workbook is packed more than {MAX_RATIO} to 1")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ResultUnreadable(reason="the workbook is encrypted or packed in an unsupported way")
    try:
        with archive.open(info) as stream:
            return stream.read(room)
    except (zipfile.BadZipFile, zlib.error, EOFError, ArithmeticError, LookupError, OSError) as error:
        raise ResultUnreadable(reason=f"the workbook is damaged: {error}") from None
    except (RuntimeError, ValueError) as error:
        raise ResultUnreadable(reason=f"the workbook is packed in an unsupported way: {error}") from None


def _measure(part: bytes, name: str) -> int:
    """How many cells this sheet holds (0 for any other part).

    Raises:
        ResultUnreadable: its grid is larger than ``MAX_CELLS`` or than a worksheet can be, or it is not plain XML.
    """
    cells = part.count(b"<c") - part.count(b"<col")
    plain = _PLAIN_CELL.findall(part) if cells else []
    if len(plain) == cells and not (b":c" in part and _PREFIXED_CELL.search(part)):
        # every cell begins with its place, as all common writers have it: then nothing else decides where it stands
        height = max(map(int, {row for _, row in plain}), default=0)
        width = max(map(column_number, {column for column, _ in plain}), default=0)
    else:
        height, width, cells = grid_of(part)
    if height > GRID[0] or width > GRID[1] or height * width > MAX_CELLS or cells > MAX_CELLS:
        raise ResultUnreadable(
            reason=f"{name[:100]} spreads over {height} rows and {width} columns; at most {MAX_CELLS} cells are read"
        )
    return cells


def _check_text(strings: bytes, cells: int, sheets: list[bytes]) -> None:
    """Refuse a long shared string that many cells name: each of them gets its own copy."""
    if len(strings) * cells <= MAX_TEXT:
        return
    lengths = lengths_of_strings(strings)
    if max(lengths, default=0) * cells <= MAX_TEXT:
        return
    # count what the cells really name; every whole number may be the number of a string
    named = (int(match[1]) for sheet in sheets for match in _INDEX.finditer(sheet))
    if sum(lengths[index] for index in named if index < len(lengths)) > MAX_TEXT:
        raise ResultUnreadable(reason=f"the workbook's text comes to more than {MAX_TEXT // 1024**2} MiB")

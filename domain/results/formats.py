"""A result file's bytes as a header and rows of cells; the content decides the format, never the name."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from domain.errors.inference import ResultUnreadable
from domain.results.columns import HEADERS
from domain.results.spreadsheet import is_workbook, read_rows

MAX_COLUMNS = 1_000
ENVELOPES = ("rows", "results", "data")
DELIMITERS = (",", ";", "\t")
ENCODINGS = ("utf-8-sig", "cp1251")  # utf-8-sig reads plain UTF-8 too

# What people send by mistake, and what to tell them.
_SIGNATURES = (
    (b"\xd0\xcf\x11\xe0", "an old .xls or a password-protected workbook; save it as an unprotected .xlsx"),
    (b"%PDF", "a PDF document, not XLSX, CSV or JSON"),
    (b"\x1f\x8b", "gzip-compressed; send it unpacked"),
    (b"\xff\xfe", "in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "in UTF-16; save it as UTF-8"),
    (b"<", "HTML or XML, not XLSX, CSV or JSON"),
)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Table(msgspec.Struct, frozen=True):
    """``header`` as written, and rows with their number in the file; a row may be shorter or longer than the header.

    In CSV and XLSX row 1 is the file's first; in JSON, which has no header row, it is the array's first object.
    """

    header: list[str]
    rows: Iterator[tuple[int, list[Any]]]
    height: int  # of the rows, about: a line of CSV is not always a row


def read_table(data: bytes) -> Table:
    """Decide what the bytes are and begin to read them; rows are read as they are asked for.

    Raises:
        ResultUnreadable: empty, without a header, binary, damaged, or with more than ``MAX_COLUMNS`` columns.
    """
    head = data.removeprefix(codecs.BOM_UTF8).lstrip()[:64]
    if not head:
        raise ResultUnreadable(reason="it is empty")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if not is_workbook(data):
            raise ResultUnreadable(reason="a ZIP archive without xl/workbook.xml is not an XLSX workbook")
        heights: list[int] = []
        return _with_header(enumerate(read_rows(data, heights.append), 1), lambda: heights[0])
    for signature, reason in _SIGNATURES:
        if head.startswith(signature):
            raise ResultUnreadable(reason=f"it is {reason}")
    if head.startswith((b"{", b"[")):
        return _json(data)
    if found := _BINARY.search(data):
        raise ResultUnreadable(reason=f"it is binary data, not XLSX, CSV or JSON (byte 0x{found[0].hex()})")
    return _csv(data, _encoding(data))


def is_blank(cell: Any) -> bool:
    """Whether nothing is written in the cell; spaces are nothing."""
    return cell is None or cell == "" or (type(cell) is str and cell.isspace())


def fold(header: str) -> str:
    """What a header is matched by: no regard to case and surrounding space."""
    return header.strip().casefold()


def _with_header(rows: Iterator[tuple[int, list[Any]]], height: Callable[[], int]) -> Table:
    for _, row in rows:
        if not all(map(is_blank, row)):
            header = ["" if cell is None else str(cell).strip().replace("\x00", "") for cell in row]
            while header and not header[-1]:
                header.pop()
            if len(header) > MAX_COLUMNS:
                raise ResultUnreadable(reason=f"it has more than {MAX_COLUMNS} columns")
            return Table(header, rows, height())
    raise ResultUnreadable(reason="it has no header row")


def _encoding(data: bytes) -> str:
    for encoding in ENCODINGS:
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    raise ResultUnreadable(reason="it is neither XLSX nor JSON, and not text in UTF-8 or Windows-1251")


def _csv(data: bytes, encoding: str) -> Table:
    """The delimiter is the one by which the header names most known columns, then most columns."""
    tables: list[Table] = []
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    failures: list[ResultUnreadable] = []
    for delimiter in DELIMITERS:
        try:
            tables.append(_with_header(_csv_rows(data, encoding, delimiter), lambda: lines))
        except ResultUnreadable as failure:
            failures.append(failure)
    best = max(tables, key=_likeness, default=None)
    if best is not None and _likeness(best) > (0, 1):  # one column nobody knows is prose, such as an error message
        return best
    failures.append(ResultUnreadable(reason="it is text, but not a CSV table: its first line names no columns"))
    raise failures[0]


def _likeness(table: Table) -> tuple[int, int]:
    return sum(fold(name) in HEADERS for name in table.header), len(table.header)


def _csv_rows(data: bytes, encoding: str, delimiter: str) -> Iterator[tuple[int, list[Any]]]:
    lines = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    # strict: otherwise a quote that is never closed swallows the rest of the file without a word
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        yield from enumerate(reader, 1)
    except csv.Error as error:
        raise ResultUnreadable(reason=f"damaged CSV near line {reader.line_num}: {error}") from None


def _json(data: bytes) -> Table:
    items = _json_items(data)
    header: dict[str, str] = {}  # by folded name, as first written
    for index, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise ResultUnreadable(reason=f"item {index} of the JSON array is not an object")
        for key in item:
            if key not in header:
                header.setdefault(fold(key), key.strip().replace("\x00", ""))
        if len(header) > MAX_COLUMNS:
            raise ResultUnreadable(reason=f"it has more than {MAX_COLUMNS} columns")
    return Table(list(header.values()), _json_rows(items, list(header)), len(items))


def _json_items(data: bytes) -> list[Any]:
    try:
        # parse_constant: Python services write NaN where they have nothing, which JSON proper does not know
        value = json.loads(content := data.decode("utf-8-sig"), parse_constant=lambda _: None)
        if _LONE_SURROGATE.search(content):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ResultUnreadable(reason="it looks like JSON but is not in valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise ResultUnreadable(
            reason=f"damaged JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ResultUnreadable(reason=f"the JSON cannot be read: {error}") from None
    if isinstance(value, dict):
        value = next((value[name] for name in ENVELOPES if isinstance(value.get(name), list)), None)
    if not isinstance(value, list):
        raise ResultUnreadable(reason=f"the JSON object has no array under {', '.join(ENVELOPES)}")
    return value


def _json_rows(items: list[Any], folded: list[str]) -> Iterator[tuple[int, list[Any]]]:
    places = {name: place for place, name in enumerate(folded)}
    for index, item in enumerate(items, 1):
        row: list[Any] = [None] * len(folded)
        for key, value in item.items():
            place = places.get(key)
            row[places[fold(key)] if place is None else place] = value
        yield index, row

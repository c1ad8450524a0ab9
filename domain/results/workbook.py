"""XLSX out: rows as ``parse`` gives them, in a workbook it reads back the same."""

import datetime
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xlsxwriter
from xlsxwriter.worksheet import Worksheet

MAX_ROWS = 1_048_575  # ECMA-376's grid less the header
MAX_TEXT = 16_383  # half of the 32,767 UTF-16 units of a cell: no text of so many characters is longer
EXACT = 10**15  # a spreadsheet's numbers keep 15 digits; a longer one is written as text

_CREATED = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)  # the same rows are the same bytes, and the same ETag

_OPTIONS = {
    # Not constant_memory: it keeps its rows in a file on disk, and nothing in `domain` does I/O.
    "in_memory": True,
    # A cell of a result is somebody else's text: `=HYPERLINK(...)` stays the text it is.
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
    "nan_inf_to_errors": False,
}


def to_xlsx(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A workbook of one sheet: ``columns`` in the first row, then the names found under ``extra``, then the rows.

    The rows are held until all are seen, as the header needs every name under ``extra``. A text longer than a cell
    can hold (32,767 UTF-16 units) is cut; lists and objects are written as JSON.

    Raises:
        ValueError: there are more rows than a worksheet has (1,048,575).
    """
    kept = rows if isinstance(rows, list) else list(rows)
    if len(kept) > MAX_ROWS:
        raise ValueError(f"a worksheet holds at most {MAX_ROWS} rows")
    extra = list(dict.fromkeys(name for row in kept for name in row.get("extra") or ()))
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, _OPTIONS) as workbook:
        workbook.set_properties({"created": _CREATED})
        sheet = workbook.add_worksheet("results")
        sheet.freeze_panes(1, 0)
        bold = workbook.add_format({"bold": True})
        for place, name in enumerate([*columns, *extra]):
            _write_text(sheet, 0, place, name, bold)
        for line, row in enumerate(kept, 1):
            for place, name in enumerate(columns):
                _write(sheet, line, place, row.get(name))
            if extra and (others := row.get("extra")):
                for place, name in enumerate(extra, len(columns)):
                    _write(sheet, line, place, others.get(name))
    return buffer.getvalue()


def _write(sheet: Worksheet, line: int, place: int, value: Any) -> None:
    if value is None or value == "":
        return
    if isinstance(value, str):
        _write_text(sheet, line, place, value)
    elif isinstance(value, bool):
        sheet.write_boolean(line, place, value)
    elif isinstance(value, float):
        if math.isfinite(value):
            sheet.write_number(line, place, value)
    elif isinstance(value, int):
        if abs(value) < EXACT:
            sheet.write_number(line, place, value)
        else:
            sheet.write_string(line, place, str(value))
    else:
        _write_text(sheet, line, place, json.dumps(value, ensure_ascii=False))


def _write_text(sheet: Worksheet, line: int, place: int, value: str, style: Any = None) -> None:
    if value.startswith("<r>") and value.endswith("</r>"):
        # xlsxwriter (sharedstrings.py) takes such a text for its own rich-string XML and writes it unescaped, so that
        # a cell of a result could break the workbook; in pieces (at least three) every character is escaped.
        value = value[: MAX_TEXT - len("</r>")]
        sheet.write_rich_string(line, place, value[:1], value[1:2], value[2:])
    else:
        sheet.write_string(line, place, value, style)

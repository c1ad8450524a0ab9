"""Rows as an XLSX workbook."""

import io
from collections.abc import Iterable

import xlsxwriter

from stack.ml.analysis import Row

CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_WIDTHS = {"path": 44, "mime_type": 30, "description": 36}


def workbook(rows: Iterable[Row]) -> bytes:
    """One sheet, headers in row 1, one row a file; ``flagged`` is a real boolean. About 26 bytes a row."""
    buffer = io.BytesIO()
    # a file's name is the uploader's text: '=cmd|...' must stay text, and a link is nobody's to click
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(buffer, options) as book:
        sheet = book.add_worksheet("files")
        sheet.freeze_panes(1, 0)
        bold = book.add_format({"bold": True})
        for column, header in enumerate(Row.__struct_fields__):
            sheet.set_column(column, column, _WIDTHS.get(header, 14))
            sheet.write_string(0, column, header, bold)
        for number, row in enumerate(rows, start=1):
            _write(sheet, number, row)
    return buffer.getvalue()


def _write(sheet: xlsxwriter.worksheet.Worksheet, number: int, row: Row) -> None:
    for column, field in enumerate(Row.__struct_fields__):
        value = getattr(row, field)
        # by type, not sheet.write(): that one guesses
        if isinstance(value, bool):
            sheet.write_boolean(number, column, value)
        elif isinstance(value, str):
            sheet.write_string(number, column, value)
        else:
            sheet.write_number(number, column, value)

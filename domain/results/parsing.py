"""From a table of cells to rows of named values, with what could not be read set down."""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from domain.errors.inference import ResultUnreadable
from domain.results.columns import HEADERS, JSON, PROB_PREFIX, Reader, plain, probability
from domain.results.formats import fold, is_blank, read_table
from domain.results.summary import Summary, summarise

MAX_WARNINGS = 1_000
COUNTED = 256  # rows between two reports: a few milliseconds
MAX_VALUE = 80  # characters of an unreadable cell that a warning shows
TYPE, HAZARD = "most_dangerous_pathology_type", "hazard_probability"

Row: TypeAlias = dict[str, Any]  # JSON values; msgspec decodes no recursive type, and Parsed should be decodable


class CellWarning(msgspec.Struct, frozen=True):
    """A cell that could not be read; its row is kept with null in its place.

    ``row`` counts from 1 as in the file, so that the header is row 1; in JSON it is the object's place in the array.
    ``column`` is the header as written, ``value`` the cell, shortened.
    """

    row: Annotated[int, Meta(examples=[4])]
    column: Annotated[str, Meta(examples=["score"])]
    value: Annotated[str, Meta(examples=["n/a"])]
    reason: Annotated[str, Meta(examples=["not a number"])]


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """A result file, read.

    ``columns`` are the canonical names present, in the order of the file, then those worked out from ``prob@`` columns.
    Every row has each of them (None where blank or unreadable) and ``extra``, which holds the cells of unknown columns
    that are not blank. At most ``MAX_WARNINGS`` warnings are kept; ``warnings_total`` counts all.
    """

    columns: list[str]
    rows: list[Row]
    warnings: list[CellWarning]
    warnings_total: int
    summary: Summary


class _Layout(msgspec.Struct, frozen=True):
    """Which cell is what, decided once a file; numbers are places in a row."""

    known: list[tuple[str, int, Reader]]
    probabilities: list[tuple[str, int]]  # prob@<name>: also kept under `extra`, as numbers
    extra: list[tuple[str, int]]
    derived: list[tuple[str, int | None]]  # TYPE and HAZARD, with their own column if the file has one


def parse(data: bytes, max_rows: int = 100_000, counted: Callable[[int, int], None] | None = None) -> Parsed:
    """Read a whole XLSX, CSV or JSON result file; the content decides which it is.

    ``counted(rows, of about so many)`` is called now and then.

    Raises:
        ResultUnreadable: it is none of them, damaged, without a header, or has more than ``max_rows`` rows.
    """
    table = read_table(data)
    layout = _layout(table.header)
    reading = _Reading(table.header, layout)
    rows: list[Row] = []
    for number, cells in table.rows:
        if counted and not number % COUNTED:
            counted(min(number, table.height), table.height)
        if all(map(is_blank, cells)):
            continue
        if len(rows) == max_rows:
            raise ResultUnreadable(reason=f"it has more than {max_rows} rows")
        rows.append(reading.row(number, cells))
    if table.header and not rows and not layout.known:
        # a sentence is a CSV file with a header and nothing else
        raise ResultUnreadable(reason="it has neither rows nor a column that is known")
    columns = [name for name, _, _ in layout.known] + [name for name, own in layout.derived if own is None]
    return Parsed(
        columns=columns,
        rows=rows,
        warnings=reading.warnings,
        warnings_total=reading.warnings_total,
        summary=summarise(columns, rows),
    )


def _layout(header: list[str]) -> _Layout:
    folded = [fold(name) for name in header]
    known: list[tuple[str, int, Reader]] = []
    taken: dict[str, int] = {}
    for place, name in enumerate(folded):
        canonical, reader = HEADERS.get(name, ("", plain))
        # a column under its own name comes before one under an alias, whichever stands first in the file
        if canonical and canonical not in taken and (name == canonical or canonical not in folded):
            taken[canonical] = place
            known.append((canonical, place, reader))
    rest = [place for place in range(len(header)) if place not in taken.values()]
    names = _distinct([header[place] or f"column_{place + 1}" for place in rest])
    probable = {place for place in rest if folded[place].startswith(PROB_PREFIX) and folded[place] not in HEADERS}
    return _Layout(
        known=known,
        probabilities=[(name, place) for name, place in zip(names, rest, strict=True) if place in probable],
        extra=[(name, place) for name, place in zip(names, rest, strict=True) if place not in probable],
        derived=[(name, taken.get(name)) for name in (TYPE, HAZARD)] if probable else [],
    )


def _distinct(names: list[str]) -> list[str]:
    """The same names, a repeated one as ``name (2)``."""
    distinct: dict[str, str] = {}  # by folded name
    for name in names:
        copy, free = 1, name
        while fold(free) in distinct:
            copy += 1
            free = f"{name} ({copy})"
        distinct[fold(free)] = free
    return list(distinct.values())


class _Reading:
    """Turns rows of cells into rows of values and keeps the warnings."""

    def __init__(self, header: list[str], layout: _Layout) -> None:
        self.warnings: list[CellWarning] = []
        self.warnings_total = 0
        self._header = header
        self._layout = layout

    def row(self, number: int, cells: list[Any]) -> Row:
        width = len(self._header)
        if len(cells) < width:
            cells = cells + [None] * (width - len(cells))
        row: Row = {}
        for name, place, read in self._layout.known:
            cell = cells[place]
            if is_blank(cell):
                row[name] = None
                continue
            try:
                row[name] = read(cell)
            except ValueError as error:
                row[name] = None
                self._warn(number, place, cell, error)
        row["extra"] = self._extra(number, cells, row)
        return row

    def _extra(self, number: int, cells: list[Any], row: Row) -> Row:
        extra: Row = {}
        for name, place in self._layout.extra:
            cell = cells[place]
            if not is_blank(cell):
                extra[name] = plain(cell)
        if self._layout.derived:
            self._weigh(number, cells, row, extra)
        for place in range(len(self._header), len(cells)):  # a row longer than the header
            if not is_blank(cells[place]):
                extra[f"column_{place + 1}"] = plain(cells[place])
        return extra

    def _weigh(self, number: int, cells: list[Any], row: Row, extra: Row) -> None:
        """Read the ``prob@<name>`` cells; the largest fills the two columns that say what is most dangerous."""
        largest, name_of_largest = -1.0, None
        for name, place in self._layout.probabilities:
            cell = cells[place]
            if is_blank(cell):
                continue
            try:
                extra[name] = value = probability(cell)
            except ValueError as error:
                extra[name] = None
                self._warn(number, place, cell, error)
                continue
            if value > largest:
                largest, name_of_largest = value, self._header[place][len(PROB_PREFIX) :].strip()
        found: dict[str, JSON] = {TYPE: name_of_largest, HAZARD: largest if name_of_largest is not None else None}
        for column, own in self._layout.derived:
            if own is None or is_blank(cells[own]):  # a cell that could not be read stays None
                row[column] = found[column]

    def _warn(self, number: int, place: int, cell: Any, error: ValueError) -> None:
        self.warnings_total += 1
        if len(self.warnings) < MAX_WARNINGS:
            value = cell if isinstance(cell, str) else str(plain(cell))
            value = value.replace("\x00", "")
            value = value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 1] + "…"
            self.warnings.append(CellWarning(number, self._header[place], value, str(error)))

"""How large a grid a worksheet's XML asks for, told without laying it out."""

import re
from xml.parsers import expat

from domain.errors.inference import ResultUnreadable

_SHARED_STRING = re.compile(rb"<(?:[^\s<>/:]+:)?si[\s/>]")
_PLACE = re.compile(r"([A-Za-z]*)([0-9]+)")


def column_number(letters: bytes) -> int:
    """``A`` is 1, ``XFD`` 16,384."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number


def grid_of(part: bytes) -> tuple[int, int, int]:
    """Rows, columns and cells of a sheet whose rows and cells may leave their places out.

    ECMA-376 makes the attribute ``r`` optional: such a cell stands right of the one before, such a row below.

    Raises:
        ResultUnreadable: the part is not well-formed XML, or has a DTD.
    """
    sheet = _Sheet()
    parser = _parser(part)
    parser.StartElementHandler, parser.EndElementHandler = sheet.start, sheet.end
    _run(parser, part)
    return sheet.height, sheet.width, sheet.cells


def lengths_of_strings(part: bytes) -> list[int]:
    """Of each shared string, in order, no less than the bytes of its text.

    Raises:
        ResultUnreadable: the part is not well-formed XML, or has a DTD, comments or CDATA.
    """
    if not part:
        return []
    # In well-formed XML without `<!` a `<si` is always an element: in attributes and text `<` must be escaped.
    _run(_parser(part), part)
    if b"<!" in part:
        raise ResultUnreadable(reason="the workbook's shared strings hold comments or CDATA")
    return [len(piece) for piece in _SHARED_STRING.split(part)[1:]]


class _Sheet:
    """Follows calamine's own count: its ``next_cell`` in ``src/xlsx/cells_reader.rs``."""

    def __init__(self) -> None:
        self.height = self.width = self.cells = self._row = self._column = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        if local not in ("row", "c"):
            return
        place = _PLACE.fullmatch(attributes.get("r", "")[:30])
        if local == "row":
            self._row = int(place[2]) - 1 if place else self._row
            return
        row = int(place[2]) if place else self._row + 1
        if place and place[1]:
            self._column = column_number(place[1].encode()) - 1
        self._column += 1
        self.cells += 1
        self.height, self.width = max(self.height, row), max(self.width, self._column)

    def end(self, name: str) -> None:
        if name.rpartition(":")[2] == "row":
            self._row += 1
            self._column = 0


def _parser(part: bytes) -> expat.XMLParserType:
    if b"<!DOCTYPE" in part or b"\x00" in part[:64]:  # entities; and UTF-16, which calamine does not read either
        raise ResultUnreadable(reason="the workbook has a DTD or is not in UTF-8")
    return expat.ParserCreate()


def _run(parser: expat.XMLParserType, part: bytes) -> None:
    try:
        parser.Parse(part, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise ResultUnreadable(reason=f"the workbook's XML is damaged: {error}") from None

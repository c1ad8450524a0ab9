"""The columns Millrace knows and how a cell of each is read.

Two families are known, always both: what chest-CT screening services answer with (Leaders of Digital Transformation
2025, task 8) and what the embedded magika service answers with.
"""

import datetime
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from domain.errors.inference import ResultUnreadable

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Reader: TypeAlias = Callable[[Any], JSON]  # one cell that is not blank; ValueError says why it cannot be read

BOX = ("x_min", "x_max", "y_min", "y_max", "z_min", "z_max")
PROB_PREFIX = "prob@"
MAX_DEPTH = 64  # of nested JSON kept under `extra`

_YES_NO = {"1": True, "true": True, "yes": True, "да": True, "0": False, "false": False, "no": False, "нет": False}
_STATUSES = {"success": "Success", "failure": "Failure"}


class Column(msgspec.Struct, frozen=True):
    """A known column: its canonical name, how a cell is read, and the aliases with a reader of their own."""

    name: str
    read: Reader
    aliases: Mapping[str, Reader] = {}


def text(cell: Any) -> JSON:
    """The cell as text; a whole number loses the ``.0`` XLSX gives it."""
    if isinstance(cell, str):
        return _storable(cell.strip())
    value = plain(cell)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number(cell: Any) -> float:
    """A finite number; in text, a decimal comma is as good as a point."""
    if type(cell) is str:
        if "_" in cell:  # float() would take 1_000
            raise ValueError("not a number")
        try:
            value = float(cell.replace(",", "."))
        except ValueError:
            raise ValueError("not a number") from None
    elif type(cell) in (int, float):
        try:
            value = float(cell)
        except OverflowError:
            raise ValueError("not a finite number") from None
    else:
        raise ValueError("not a number")
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def probability(cell: Any) -> float:
    """From 0 to 1; text may say ``87 %``."""
    if type(cell) is str and cell.rstrip().endswith("%"):
        return percent(cell)
    value = number(cell)
    if not 0 <= value <= 1:
        raise ValueError("not between 0 and 1")
    return value


def percent(cell: Any) -> float:
    """From 0 to 100, divided by 100."""
    value = number(cell.rstrip().removesuffix("%") if type(cell) is str else cell)
    if not 0 <= value <= 100:
        raise ValueError("not between 0 and 100")
    return value / 100


def yes_no(cell: Any) -> bool:
    """0 or 1 as integer, float or text; a boolean; true/yes/да, false/no/нет."""
    if type(cell) is bool:
        return cell
    if type(cell) is str and (known := _YES_NO.get(cell.strip().casefold())) is not None:
        return known
    try:
        value = number(cell)
    except ValueError:
        value = -1.0
    if value not in (0, 1):
        raise ValueError("not 0 or 1, true or false, yes or no")
    return value == 1


def zero_one(cell: Any) -> int:
    """As ``yes_no``, but as the number 0 or 1."""
    return int(yes_no(cell))


def status(cell: Any) -> str:
    """``Success`` or ``Failure``, however it is spelt."""
    known = _STATUSES.get(cell.strip().casefold()) if type(cell) is str else None
    if known is None:
        raise ValueError("not Success or Failure")
    return known


def seconds(cell: Any) -> float:
    """Seconds, not negative; a spreadsheet's time or duration counts as one."""
    if type(cell) is datetime.timedelta:
        cell = cell.total_seconds()
    elif type(cell) is datetime.time:
        cell = cell.hour * 3600.0 + cell.minute * 60 + cell.second + cell.microsecond / 1e6
    value = number(cell)
    if value < 0:
        raise ValueError("less than 0 seconds")
    return value


def size(cell: Any) -> int:
    """Bytes: a whole number, not negative."""
    value = number(cell)
    if value < 0 or not value.is_integer() or value >= 2**63:
        raise ValueError("not a whole number of bytes")
    return int(value)


def localization(cell: Any) -> JSON:
    """Six numbers, always as a list ``[x_min, x_max, y_min, y_max, z_min, z_max]``.

    Read from ``"1,2,3,4,5,6"`` (``;`` separates too, and then a decimal comma is possible), from a JSON array (as text
    or as it is in a JSON file), or from an object with these six keys.
    """
    parts: Any = cell
    if type(cell) is str:
        stripped = cell.strip()
        if stripped.startswith("["):
            try:
                parts = json.loads(stripped)
            except (ValueError, RecursionError):
                raise ValueError("not a JSON array of six numbers") from None
        else:
            parts = stripped.split(";" if ";" in stripped else ",")
    elif isinstance(cell, dict):
        parts = [cell.get(side) for side in BOX]
    if not isinstance(parts, list) or len(parts) != len(BOX):
        raise ValueError("not six numbers")
    try:
        return [number(part) for part in parts]
    except ValueError:
        raise ValueError("not six numbers") from None


KNOWN: tuple[Column, ...] = (
    Column("path_to_study", text),
    Column("study_uid", text),
    Column("series_uid", text),
    Column("probability_of_pathology", probability, {"probability_of_pathology_percent": percent}),
    Column("pathology", zero_one),
    Column("processing_status", status),
    Column("time_of_processing", seconds, {"processing_time": seconds, "time_of_analysis": seconds}),
    Column("most_dangerous_pathology_type", text),
    Column("hazard_probability", probability),
    Column("pathology_localization", localization),
    Column(
        "probability_of_anomaly",
        probability,
        {"probability_of_anomaly_percent": percent, "anom_score": probability, "prob@anomaly": probability},
    ),
    Column("path", text),
    Column("size", size),
    Column("detected_type", text),
    Column("mime_type", text),
    Column("description", text),
    Column("score", probability),
    Column("expected_type", text),
    Column("flagged", yes_no),
)

# Every accepted header, folded: its canonical name and its reader. A canonical name comes before its aliases.
HEADERS: dict[str, tuple[str, Reader]] = {
    header: (column.name, read)
    for column in KNOWN
    for header, read in ({column.name: column.read, **column.aliases}).items()
}


def plain(value: Any, depth: int = MAX_DEPTH) -> JSON:
    """Any cell as JSON that Postgres keeps: dates as ISO strings, durations in seconds, no NUL, no NaN.

    Raises:
        ResultUnreadable: it is nested deeper than ``depth``.
    """
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return _storable(value)
    if type(value) is float:
        if value.is_integer() and abs(value) < 2**53:
            return int(value)  # XLSX has no other numbers
        return value if math.isfinite(value) else None
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if depth == 0:
        raise ResultUnreadable(reason=f"a value is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {_storable(str(key)): plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, depth - 1) for item in value]
    return str(value)


def _storable(value: str) -> str:
    return value.replace("\x00", "") if "\x00" in value else value  # JSONB refuses U+0000

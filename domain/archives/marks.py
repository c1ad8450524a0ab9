"""Runs of combining marks in names, which are refused before anything puts marks into their canonical order.

Python sorts the marks of a run by insertion, so the time grows with the square of its length. Text that is not made
for harm has a handful in a row; Unicode's Stream-Safe Text Format (UAX #15, 13) allows 30, which takes too long here.
"""

import re
import unicodedata
from functools import cache

MARKS_MOST = 10
_LAST = 0x20000  # no plane from there on has a mark
_MADE_OF_MARKS = "\u0f73\u0f75\u0f81"  # no marks by their class, but nothing else comes out of them


@cache
def _marks() -> frozenset[str]:
    """10 ms, which only names that are not ASCII pay."""
    return frozenset(_MADE_OF_MARKS).union(filter(unicodedata.combining, map(chr, range(0x300, _LAST))))


def too_many_marks(text: str) -> str | None:
    """The name, of those in ``text`` that stand on lines of their own, with more than ``MARKS_MOST`` in a row."""
    present = _marks().intersection(text)
    if not present:
        return None
    for run in re.finditer(f"[{''.join(sorted(present))}]+", text):
        if run.end() - run.start() > MARKS_MOST:
            return text[text.rfind("\n", 0, run.start()) + 1 : run.end()].removeprefix("/")
    return None

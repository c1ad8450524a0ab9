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
_SURROGATES = bytes(range(0xD8, 0xE0))  # the first byte of what stands beyond the first plane, in UTF-16


@cache
def _marks() -> frozenset[str]:
    """10 ms, which only names beyond ASCII and Cyrillic pay."""
    return frozenset(_MADE_OF_MARKS).union(filter(unicodedata.combining, map(chr, range(0x300, _LAST))))


@cache
def _run_of_first_plane() -> re.Pattern[str]:
    """Asked of every letter: a class without the other planes is one look into a table."""
    return _run_of(frozenset(mark for mark in _marks() if ord(mark) < 0x10000))


def _run_of(marks: frozenset[str]) -> re.Pattern[str]:
    return re.compile(f"[{''.join(sorted(marks))}]{{{MARKS_MOST + 1}}}")


def too_many_marks(text: str) -> str | None:
    """The name, of those in ``text`` that stand on lines of their own, with more than ``MARKS_MOST`` in a row."""
    pages = text.encode("utf-16-be", "surrogatepass")[::2]
    # Latin and Cyrillic without accents of their own: the few marks there are all of one class, and never sorted
    if not pages.translate(None, b"\x00\x04"):
        return None
    if len(pages.translate(None, _SURROGATES)) == len(pages):
        pattern = _run_of_first_plane()
    elif present := _marks().intersection(text):
        pattern = _run_of(present)
    else:
        return None
    run = pattern.search(text)
    return None if run is None else text[text.rfind("\n", 0, run.start()) + 1 : run.end()].removeprefix("/")

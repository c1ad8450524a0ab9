"""How wide the parts of a line with a bar are on a terminal of some width, and which are left out."""

from typing import NamedTuple

PERCENT, CLOCK = len("100 %"), len("0:00:00")
LEAST_BAR, LEAST_NAME, LEAST_STAGE, LEAST_MESSAGE = 10, 10, 9, 12
MOST_NAME = 24


class Widths(NamedTuple):
    """In cells; 0 is left out. One cell lies between two parts."""

    name: int
    stage: int
    bar: int
    percent: int
    clock: int
    left: int
    message: int

    def total(self) -> int:
        return sum(self) + max(0, sum(width > 0 for width in self) - 1)


# What gives way, in this order: the name and the bar to what they need at least, the message, the clock, what is left.
_NARROWED = {"name": LEAST_NAME, "bar": LEAST_BAR, "message": LEAST_MESSAGE}
_LEFT_OUT = ("message", "clock", "left")
_LAST = {"stage": LEAST_STAGE, "name": 0}


def fitted(width: int, wanted: Widths) -> Widths:
    """``wanted`` made to fit into ``width``."""
    fits = wanted._replace(name=min(wanted.name, MOST_NAME))
    steps = [*_NARROWED.items(), *((part, 0) for part in _LEFT_OUT), *_LAST.items()]
    for part, least in steps:
        over = fits.total() - width
        if over <= 0:
            break
        now: int = getattr(fits, part)
        fits = fits._replace(**{part: 0 if least == 0 else min(now, max(least, now - over))})
    return fits

"""An estimate comes from what was seen, and from nothing else."""

import pytest

from domain.pace import LEAST_SHARE, WATCHED_SECONDS, Pace


def test_an_even_pace_is_foreseen_exactly() -> None:
    pace = Pace(0.0, 100.0)
    for second in range(2, 10):
        assert pace.left(second / 10, 100.0 + second) == pytest.approx(10 - second)
    assert pace.left(1.0, 110.0) == 0


def test_what_was_done_before_one_looked_took_nobody_knows_how_long() -> None:
    pace = Pace(0.6, 0.0)
    assert pace.left(0.7, 2.0) == pytest.approx(6.0)


def test_nothing_is_said_before_there_is_a_pace() -> None:
    assert Pace(0.0, 0.0).left(0.5, WATCHED_SECONDS * 0.9) is None
    assert Pace(0.2, 0.0).left(0.2, 60.0) is None
    assert Pace(0.2, 0.0).left(0.2 + LEAST_SHARE / 2, 60.0) is None


def test_what_begins_anew_is_looked_at_anew() -> None:
    pace = Pace(0.5, 0.0)
    assert pace.left(0.9, 4.0) == pytest.approx(1.0)
    assert pace.left(0.0, 10.0) is None
    assert pace.left(0.1, 12.0) == pytest.approx(18.0)

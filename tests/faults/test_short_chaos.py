"""Forty deaths in a minute, of anything, under load: no job is lost and no effect happens twice."""

import json
import sys

import pytest

from tests.faults.chaos import QUICK, WIDE, house, play

KILLS = 40


@pytest.mark.timeout(180)
def test_forty_kills(capsys: pytest.CaptureFixture[str]) -> None:
    with house({**QUICK, **WIDE}) as (stack, ml):
        played = play(stack, ml, kills=KILLS, seconds=45, seed=40, settle=40, resend=True)
    report = played.report()
    with capsys.disabled():
        sys.stdout.write(f"\n{json.dumps(report, indent=2)}\n")
    assert played.verdict.violations == []
    assert report["kills"] >= KILLS / 2, "on a busy machine there are fewer than forty, but not so few"
    assert played.wanted, "nobody wanted anything else of a job"
    assert played.verdict.interruptions > 0, "no death has hit a step"
    assert played.settled_after < 30, "once the deaths are over"

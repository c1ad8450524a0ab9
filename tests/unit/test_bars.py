"""How long it will take still, as a terminal says it."""

import io
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from rich.console import Console

from domain.jobs import Event, EventType
from stack.terminal.bars import Bars, in_words, show


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, ""), (1, "1 s left"), (99, "99 s left"), (150, "2 min left"), (5400, "90 min left"), (7200, "2 h left")],
)
def test_a_time_is_told_in_two_digits(seconds: int | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.terminal.text.language", lambda: "en")
    assert in_words(seconds) == said


def test_the_bar_has_it_as_long_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.terminal.text.language", lambda: "en")
    written = io.StringIO()
    bars = Bars(Console(file=written, force_terminal=True, width=160))
    job_id = uuid4()

    def tell(**data: object) -> str:
        written.truncate(0)
        show(bars, "a.zip", Event(job_id=job_id, type=EventType.PROGRESS, at=at, data={"stage": "waiting", **data}))
        bars._progress.refresh()
        return written.getvalue()

    at = datetime.now(UTC)
    with bars:
        assert "12 s left" in tell(progress=40, eta_seconds=12)
        assert "left" not in tell(progress=41)

"""What a terminal says of what is under way: in its width, in its owner's language, and how long it will take still."""

import io
import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from rich.cells import cell_len
from rich.console import Console

from domain import inference, recordings
from domain.jobs import TERMINAL, Event, EventType, Status
from stack.terminal.bars import Bars, in_words, show
from stack.terminal.widths import Widths, fitted
from stack.terminal.words import retold, word


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


LONG = "очень-длинное-имя-исследования-2025.zip"
MESSAGE = "17 of 42 files"


def drawn(width: int, *names: str, left: int | None = 90) -> list[str]:
    written = io.StringIO()
    bars = Bars(Console(file=written, force_terminal=True, width=width, soft_wrap=True), several=len(names) > 1)
    with bars:
        for name in names:
            bars.show(name, name, "waiting", 45, MESSAGE, left)
        written.truncate(written.seek(0))
        bars._progress.refresh()
        lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue()).replace("\r", "\n").splitlines()
    return [line for line in lines if "%" in line]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, set()),
        (50, {"left"}),
        (60, {"left", "clock"}),
        (80, {"left", "clock", "message"}),
        (120, {"left", "clock", "message", "name"}),
    ],
)
def test_on_a_narrow_terminal_the_less_important_is_left_out_whole(
    width: int, shown: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stack.terminal.text.language", lambda: "en")
    lines = drawn(width, LONG, "b.zip")
    assert len(lines) == 2, "a line for each"
    assert {cell_len(line.rstrip()) <= width for line in lines} == {True}
    for line in lines:
        assert line.startswith(("очень-дли", "b.zip "))
        assert " waiting " in line
        assert len(re.findall("[━╸╺]", line)) >= 10
        assert " 45 %" in line
        told = {"left": "90 s left", "clock": "0:00:00", "message": MESSAGE, "name": LONG[:23]}
        assert {part for part, said in told.items() if said in line} - {"name"} == shown - {"name"}
    assert (LONG[:23] in lines[0]) == ("name" in shown)


def test_a_single_bar_has_no_name_and_so_more_room() -> None:
    (line,) = drawn(60, LONG)
    assert LONG[:5] not in line
    assert "0:00:00" in line
    assert len(re.findall("[━╸╺]", line)) >= 10


def test_what_fits_is_as_wide_as_it_wants() -> None:
    wanted = Widths(name=9, stage=10, bar=20, percent=5, clock=7, left=9, message=14)
    assert fitted(200, wanted) == wanted
    for width in range(36, 200):
        fits = fitted(width, wanted)
        assert fits.total() <= width
        assert fits.bar >= 10
        assert fits.percent == 5


def test_russian_is_spoken_to_a_russian(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("text", "words"):
        monkeypatch.setattr(f"stack.terminal.{module}.language", lambda: "ru")
    assert [word(name) for name in ("waiting", "succeeded", "created", "upload")] == [
        "ML-сервис",
        "Выполнена",
        "Создана",
        "Отправка",
    ]
    assert word("of_tomorrow") == "of_tomorrow"
    assert retold("accepted by the ML service") == "принято ML-сервисом"
    assert retold("42 rows, 6 flagged") == "строк: 42, отмечено: 6"
    assert retold("the scanner warms up") == "the scanner warms up"


def test_everything_that_can_be_shown_has_a_russian_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.terminal.words.language", lambda: "ru")
    steps = [step.name for pipeline in (inference.PIPELINE, recordings.PIPELINE) for step in pipeline.steps]
    for name in (*Status, *TERMINAL, *steps, EventType.CREATED, EventType.QUEUED, "waiting", "upload"):
        assert re.search("[а-яё]", word(name)), name

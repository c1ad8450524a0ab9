"""What reaches a step while it runs, and what it says of itself: cancelling and progress."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis

from domain.errors.inference import MlUnavailable
from domain.pipelines import Context, Done, JobInStep, Outcome, Pipeline, StepFunction
from storage import events
from storage.configuration import settings
from tests import job_rows
from tests.tiny_pipelines import (
    LEASE,
    ONE,
    SHORT,
    TWO,
    Run,
    done,
    failing,
    learns,
    with_effect,
)
from workers import progress

# ---------------------------------------------------------------- cancelling


def request_cancel(job_id: UUID) -> None:
    job_rows.change(job_id, "cancel_requested_at = now()")


def test_a_running_step_is_cancelled_at_its_next_checkpoint() -> None:
    run = Run(TWO, a=learns(lambda: request_cancel(run.job_id)), b=done)
    began = time.monotonic()
    assert run.step("a") is None
    assert time.monotonic() - began < 2 * LEASE
    assert (run.row["status"], run.types) == ("cancelled", ["queued", "stage", "cancelled"])


@pytest.mark.parametrize("line", [ONE, TWO, SHORT], ids=["last", "before another", "before a short one"])
@pytest.mark.parametrize(
    "end", [done, with_effect, failing(MlUnavailable(reason="x"))], ids=["done", "effect", "fault"]
)
def test_a_step_without_checkpoints_is_cancelled_at_its_end_and_has_no_effect(
    line: Pipeline, end: StepFunction
) -> None:
    def ends_after_it(job: JobInStep, context: Context) -> Outcome:
        request_cancel(job.id)
        return end(job, context)

    run = Run(line, a=ends_after_it, b=done)
    assert run.step("a") is None
    assert (run.row["status"], run.types) == ("cancelled", ["queued", "stage", "cancelled"])
    assert run.row["title"] == "a.txt"


# ---------------------------------------------------------------- progress


class Clock:
    """What a running step takes for the time: it goes on as the test says, and not as the machine likes."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        return self._now

    def go_on(self, seconds: float, each: float) -> Iterator[float]:
        """So many seconds: how many have gone by, in small steps."""
        began = self._now
        while (gone := self._now - began) < seconds:
            yield gone
            self._now += each


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@contextmanager
def listening(job_id: UUID) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What is announced about a job."""
    client = redis.Redis.from_url(settings().redis_url)
    with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(events.channel(job_id))
        assert pubsub.get_message(timeout=15)["type"] == "subscribe"

        def heard() -> list[dict[str, Any]]:
            client.publish(events.channel(job_id), b"0")  # comes after all that was published before
            messages = []
            while message := msgspec.json.decode(pubsub.get_message(timeout=15)["data"]):
                messages.append(message)
            return messages

        yield heard
    client.close()


def reporting(clock: Clock) -> StepFunction:
    def step(job: JobInStep, context: Context) -> Outcome:
        for gone in clock.go_on(0.8, each=0.001):
            context.progress(gone, 0.8, "on the way")
        return Done()

    return step


def test_progress_is_coalesced_and_announced_within_the_part_of_its_step(clock: Clock) -> None:
    run = Run(TWO, a=reporting(clock), b=reporting(clock))
    with listening(run.job_id) as heard:
        run.step("a")
        run.step("b")
        announced = heard()
    live = [event for event in announced if event["type"] == "progress"]
    assert 14 <= len(live) <= 16, "some hundred reports, ten announcements a second"
    percents = [event["data"]["progress"] for event in live]
    assert percents == sorted(percents)
    for event in live:
        low, high = (0, 50) if event["data"]["stage"] == "a" else (50, 100)
        assert low <= event["data"]["progress"] <= high
        assert "seq" not in event
    stored = [event["seq"] for event in announced if "seq" in event]
    assert stored == [2, 3, 4, 5]
    assert len(run.types) == 5, "none of it is stored one by one"


def test_a_pace_that_has_been_watched_says_how_long_the_step_goes_on(clock: Clock) -> None:
    def steadily(job: JobInStep, context: Context) -> Outcome:
        for gone in clock.go_on(1.6, each=0.01):
            context.progress(gone, 2.0)
        return Done()

    def in_parts(job: JobInStep, context: Context) -> Outcome:
        for gone in clock.go_on(1.3, each=0.01):
            context.progress(gone, 2.0, part=(1, 2))
        return Done()

    run = Run(TWO, a=steadily, b=in_parts)
    with listening(run.job_id) as heard:
        run.step("a")
        first = [event["data"] for event in heard() if event["type"] == "progress"]
        run.step("b")
        second = [event["data"] for event in heard() if event["type"] == "progress"]
    told = [data["eta_seconds"] for data in first if "eta_seconds" in data]
    assert told
    assert len(told) < len(first), "not before it was watched for a second"
    assert set(told) == {1}, "0.4 to 0.9 seconds, rounded up"
    assert second
    assert not [data for data in second if "eta_seconds" in data], "nobody knows the pace of the second part"
    assert max(data["progress"] for data in second) < 75


def test_a_short_step_costs_no_statement_for_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    def briefly(job: JobInStep, context: Context) -> Outcome:
        for each in range(1000):
            context.progress(each, 1000)
        return Done()

    asked: list[object] = []
    monkeypatch.setattr("workers.progress.autocommit", lambda: asked.append(1))
    run = Run(ONE, a=briefly)
    run.step("a")
    assert (run.row["status"], asked) == ("succeeded", [])


def test_an_attempt_done_again_does_not_announce_less_than_was_reached(clock: Clock) -> None:
    run = Run(ONE, a=reporting(clock))
    job_rows.change(run.job_id, "progress = 70")
    with listening(run.job_id) as heard:
        run.step("a")
        percents = [event["data"]["progress"] for event in heard() if event["type"] == "progress"]
    assert percents
    assert min(percents) >= 70


@pytest.mark.parametrize(("given", "total"), [(5, 0), (-1, 10), (99, 10), (0, -1)])
def test_a_nonsensical_report_does_no_harm(clock: Clock, given: float, total: float) -> None:
    def report(job: JobInStep, context: Context) -> Outcome:
        for _ in clock.go_on(0.12, each=0.12):
            pass
        context.progress(given, total)
        return Done()

    run = Run(ONE, a=report)
    run.step("a")
    assert run.row["status"] == "succeeded"

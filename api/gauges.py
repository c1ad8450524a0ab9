"""The engine's gauges among this process's metrics.

They are the same in every API process, being read from Postgres and the broker, and a scrape never waits long for them
nor fails with them: what cannot be read is left out, and ``millrace_gauges_readable`` says so.
"""

import time
from collections.abc import Callable, Iterator

import anyio
import msgspec
import structlog
from anyio import CapacityLimiter, to_thread
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from domain.modules import enabled
from storage import dispatch, gauges
from storage.configuration import settings
from storage.gauges import MailboxNumbers, Standing

FRESH_SECONDS = 5.0  # between two readings, whoever scrapes
PATIENCE_SECONDS = 2.0

_log = structlog.get_logger("api.gauges")


class Readings(msgspec.Struct):
    """The last ones; None is what could not be read."""

    at: float = float("-inf")  # time.monotonic()
    standing: Standing | None = None
    depths: dict[str, int] | None = None


class EngineGauges(Collector):
    """Reads at most every five seconds, and gives out what was read last."""

    def __init__(self) -> None:
        self._readings = Readings()
        self._limiter: CapacityLimiter | None = None

    async def refresh(self) -> None:
        """Read what is older than five seconds, for two seconds at most. Never raises."""
        if time.monotonic() - self._readings.at < FRESH_SECONDS:
            return
        readings = Readings(at=time.monotonic())
        self._readings.at = readings.at  # others that scrape meanwhile are given what there is
        # a neighbour that hangs keeps its thread beyond the two seconds
        limiter = self._limiter = self._limiter or CapacityLimiter(2)

        async def read(name: str, ask: Callable[[], object]) -> None:
            with anyio.move_on_after(PATIENCE_SECONDS):
                try:
                    setattr(readings, name, await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=limiter))
                except Exception as error:  # whatever it is, the scrape goes on without
                    _log.warning("gauges_not_read", what=name, error=str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(read, "standing", gauges.standing)
            group.start_soon(read, "depths", dispatch.depths)
        self._readings = readings

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on what can be read."""
        return []

    def collect(self) -> Iterator[Metric]:
        readings = self._readings
        yield _labelled(
            "gauges_readable",
            "1 when the source of these gauges answered, else 0 and its gauges are missing",
            "source",
            {"postgres": readings.standing is not None, "broker": readings.depths is not None},
        )
        if readings.standing is not None:
            yield from _of_engine(readings.standing)
            yield from _of_housekeeping(readings.standing)
        if readings.depths is not None:
            yield _labelled("queue_messages", "Messages waiting in the broker", "queue", readings.depths)


def _of_engine(now: Standing) -> Iterator[Metric]:
    unfinished = {"pending": now.pending, "queued": now.queued, "processing": now.processing}
    yield _labelled("jobs", "Unfinished jobs whose turn it is; 100000 means at least", "status", unfinished)
    yield _gauge("jobs_backlog", "Queued jobs of owners who have as many running as they may", now.backlog)
    ended = dict.fromkeys(("succeeded", "failed", "cancelled"), 0) | now.ended_last_hour
    yield _labelled("jobs_ended_last_hour", "Jobs that ended within the last hour", "status", ended)
    yield _gauge("oldest_queued_seconds", "How long the oldest queued job has waited", now.oldest_queued_seconds)
    yield _gauge("jobs_past_lease", "Jobs whose worker has not been heard of in time", now.past_lease)
    yield _gauge("jobs_past_deadline", "Jobs that wait past their deadline", now.past_deadline)
    yield _gauge("jobs_unpublished", "Jobs that are due and have no message", now.unpublished)
    yield _gauge(
        "steps_quarantined_last_hour",
        "Jobs failed within the last hour because a step took its worker with it, or hung, again and again",
        now.quarantined_last_hour,
    )
    modules = enabled(settings().modules)
    if "webhooks" in modules:  # else nobody is to deliver them
        yield _gauge("webhook_deliveries_overdue", "Deliveries that were due a minute ago", now.webhooks_overdue)
    if "recordings" in modules:
        yield from _of_recordings(now)
        yield _gauge("mango_deliveries_waiting", "Notifications of calls not applied in a minute", now.mango_waiting)
        yield _gauge("mango_deliveries_failed", "Notifications of calls that cannot be applied", now.mango_failed)
    # one of a capability that was switched off stands still for good
    ticks = {name: since for name, since in now.tick_seconds.items() if name.partition(".")[0] in modules}
    yield _labelled("tick_seconds", "Since the last slot of a tick that was run", "tick", ticks)


def _of_recordings(now: Standing) -> Iterator[Metric]:
    states = dict.fromkeys(("claimed", "stored", "duplicate", "skipped", "failed"), 0) | now.mail_messages
    yield _labelled("mail_messages", "Messages with audio by what became of them; claimed ones wait", "state", states)
    kept = dict.fromkeys(("matched", "unmatched"), 0) | now.recordings
    yield _labelled("recordings", "Recordings that are kept; 100000 means at least", "status", kept)
    yield _gauge("mailboxes_disabled", "Mailboxes whose login was refused", now.mailboxes_disabled)
    yield _gauge("mailboxes_failing", "Mailboxes whose last look failed", now.mailboxes_failing)
    yield _gauge("mailboxes_overdue", "Mailboxes that were to be looked into five minutes ago", now.mailboxes_overdue)
    boxes = now.mailboxes
    yield _by_mailbox("messages", "Messages with audio by what became of them", "state", tuple(states), boxes)
    yield _by_mailbox("recordings", "Recordings that are kept", "status", tuple(kept), boxes)
    failures = {name: one.failures for name, one in boxes.items()}
    yield _labelled("mailbox_failures", "Looks in a row that failed", "mailbox", failures)
    looked = {name: one.seconds for name, one in boxes.items() if one.seconds is not None}
    yield _labelled("mailbox_checked_seconds", "Since the last look", "mailbox", looked)


def _by_mailbox(
    name: str, text: str, label: str, keys: tuple[str, ...], mailboxes: dict[str, MailboxNumbers]
) -> Metric:
    family = GaugeMetricFamily(f"millrace_mailbox_{name}", text, labels=["mailbox", label])
    for mailbox, one in sorted(mailboxes.items()):
        for key in keys:
            family.add_metric([mailbox, key], float(one.numbers.get(key, 0)))
    return family


def _of_housekeeping(now: Standing) -> Iterator[Metric]:
    passes = now.housekeeping
    missing = {name.removeprefix("rows."): one.found for name, one in passes.items() if name.startswith("rows.")}
    yield _labelled("rows_without_object", "Rows whose object is gone, by the last reconciliation", "kind", missing)
    swept = CounterMetricFamily(
        "millrace_leftovers_swept", "Objects and uploads without a row, deleted", labels=["kind"]
    )
    over = {name.removeprefix("objects."): one for name, one in passes.items() if name.startswith(("obj", "upl"))}
    for kind, one in over.items():
        swept.add_metric([kind], one.total)
    yield swept
    held = {kind: one.held for kind, one in over.items()}
    yield _labelled("leftovers_held", "Leftovers not deleted because there are suspiciously many", "kind", held)
    ages = {name: one.seconds for name, one in passes.items() if one.seconds is not None}
    yield _labelled("housekeeping_pass_seconds", "Since the last whole pass over all there is", "name", ages)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"millrace_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, int] | dict[str, float] | dict[str, bool]) -> Metric:
    family = GaugeMetricFamily(f"millrace_{name}", text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], float(value))
    return family


engine_gauges = EngineGauges()
REGISTRY.register(engine_gauges)

"""What must never grow can be seen: in /metrics, cheaply, and without ever failing the scrape."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from litestar import Litestar
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from api import health
from api.gauges import engine_gauges
from migrations.__main__ import upgrade
from stack.up import ROOT, Stack
from storage import dispatch, gauges
from storage.database import autocommit
from storage.jobs.sweep import Due
from tests import job_rows
from workers.files import reconcile
from workers.ticks import once_a_slot

ALERTS = ROOT / "ops/prometheus/alerts.yml"
OPERATIONS = Path(ROOT / "docs/operations.md")


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> None:
    upgrade()


@pytest.fixture(autouse=True)
def fresh() -> None:
    job_rows.clear()
    with autocommit() as connection:
        connection.execute(text("DELETE FROM ticks"))
        connection.execute(text("DELETE FROM housekeeping"))
    forget()


def forget() -> None:
    engine_gauges._readings = type(engine_gauges._readings)()
    engine_gauges._limiter = None  # it belongs to the event loop of a client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Litestar]]:
    with TestClient(Litestar(health.routes, logging_config=None)) as client:
        yield client


def scrape(client: TestClient[Litestar]) -> dict[str, float]:
    """Every sample of ours by its name and labels: ``jobs{pending}``."""
    forget()
    answer = client.get("/metrics")
    assert answer.status_code == 200
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(sample.labels.values())
            samples[sample.name.removeprefix("millrace_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return samples


def test_an_idle_engine_shows_nothing_that_grows(client: TestClient[Litestar]) -> None:
    seen = scrape(client)
    for name in (
        *("jobs{pending}", "jobs{queued}", "jobs{processing}", "jobs_backlog", "oldest_queued_seconds"),
        *("jobs_past_lease", "jobs_past_deadline", "jobs_unpublished", "steps_quarantined_last_hour"),
        *("jobs_ended_last_hour{failed}", "queue_messages{io}", "queue_messages{default}"),
    ):
        assert seen[name] == 0, name
    assert (seen["gauges_readable{postgres}"], seen["gauges_readable{broker}"]) == (1, 1)


def test_each_gauge_counts_what_it_says(client: TestClient[Litestar]) -> None:
    job_rows.pending()
    old, unpublished, backlog = job_rows.queued(), job_rows.queued(), job_rows.queued()
    job_rows.change(old, "run_at = now() - interval '100 s', republish_at = now() + interval '1 hour'")
    job_rows.change(unpublished, "republish_at = now() - interval '1 s'")
    job_rows.change(backlog, "admitted = FALSE, run_at = now() - interval '1 day'")
    lost, waits = job_rows.claimed().job.id, job_rows.claimed().job.id
    job_rows.change(lost, "lease_until = now() - interval '1 s'")
    job_rows.change(
        waits,
        "claim = NULL, lease_until = NULL, awaiting = TRUE, stage = 'waiting', deadline_at = now() - interval '1 s'",
    )
    for code, ago in (("worker_lost", "1 minute"), ("step_timeout", "2 minutes"), ("worker_lost", "2 hours")):
        job_rows.change(
            job_rows.queued(),
            f"status = 'failed', step = NULL, error_code = '{code}', completed_at = now() - interval '{ago}'",
        )
    assert dispatch.publish(Due(job_id=old, kind="inference", step="inspect", lane=0))
    once_a_slot("jobs.sweep", lambda: None, 1)()
    reconcile()
    seen = scrape(client)
    expected = {
        "jobs{pending}": 1,
        "jobs{queued}": 2,
        "jobs{processing}": 2,
        "jobs_backlog": 1,
        "jobs_unpublished": 1,
        "jobs_past_lease": 1,
        "jobs_past_deadline": 1,
        "steps_quarantined_last_hour": 2,
        "jobs_ended_last_hour{failed}": 2,
        "queue_messages{io}": 1,
        "leftovers_held{inputs}": 0,
        "leftovers_swept_total{uploads}": 0,
    }
    assert {name: seen[name] for name in expected} == expected
    assert 100 <= seen["oldest_queued_seconds"] < 160
    assert seen["tick_seconds{jobs.sweep}"] < 30
    assert seen["rows_without_object{files}"] >= 8, "the rows of these tests have no objects"
    assert seen["housekeeping_pass_seconds{objects.inputs}"] < 30


def test_scrapes_share_a_reading(client: TestClient[Litestar], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = gauges.standing

    def counted() -> Any:
        read.append(1)
        return real()

    monkeypatch.setattr(gauges, "standing", counted)
    forget()
    for _ in range(5):
        assert "millrace_jobs_past_lease" in client.get("/metrics").text
    assert len(read) == 1


@pytest.mark.parametrize(("server", "source"), [("postgres", "postgres"), ("redis", "broker")])
def test_a_neighbour_that_is_away_does_not_fail_the_scrape(
    client: TestClient[Litestar], in_process: Stack, server: str, source: str
) -> None:
    process = in_process.processes[server]
    process.stop()
    try:
        began = time.monotonic()
        seen = scrape(client)
        took = time.monotonic() - began
    finally:
        process.start()
    assert seen[f"gauges_readable{{{source}}}"] == 0
    assert took < 4
    assert ("jobs{queued}" in seen) is (source != "postgres"), "what is not known is not told"
    deadline = time.monotonic() + 20
    while scrape(client)[f"gauges_readable{{{source}}}"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_no_gauge_reads_the_whole_table() -> None:
    with autocommit() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        try:
            plan = "\n".join(connection.execute(text(f"EXPLAIN {gauges._asked.text}")).scalars())
        finally:
            connection.execute(text("RESET enable_seqscan"))
    assert "ix_jobs_" in plan
    for table in ("jobs", "recordings", "mango_deliveries"):
        assert f"Seq Scan on {table}" not in plan, plan


# ---------------------------------------------------------------- rules and documentation


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def shown(client: TestClient[Litestar]) -> set[str]:
    once_a_slot("jobs.sweep", lambda: None, 1)()
    reconcile()
    return {name.partition("{")[0] for name in scrape(client)}


def test_every_metric_of_a_rule_exists(client: TestClient[Litestar]) -> None:
    named = {name for rule in rules() for name in re.findall(r"millrace_(\w+)", rule["expr"])}
    assert named
    assert named <= shown(client)
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_every_gauge_of_the_engine_is_explained_and_what_must_not_grow_has_a_rule(
    client: TestClient[Litestar],
) -> None:
    forget()
    client.get("/metrics")
    engine = {family.name for family in engine_gauges.collect()}
    page = OPERATIONS.read_text()
    explained = page[page.index("## What must never grow") :]
    explained = explained[: explained.index("\n## ", 5)]
    assert engine <= set(re.findall(r"`(millrace_\w+?)(?:_total)?(?:\{[\w,]+\})?`", explained))
    ruled = set(re.findall(r"millrace_\w+", "".join(rule["expr"] for rule in rules())))
    assert engine - {name.removesuffix("_total") for name in ruled} == {
        "millrace_jobs",
        "millrace_recordings",
        "millrace_housekeeping_pass_seconds",
        # whose totals have rules: these say which mailbox it is
        "millrace_mailbox_messages",
        "millrace_mailbox_recordings",
        "millrace_mailbox_failures",
        "millrace_mailbox_checked_seconds",
    }

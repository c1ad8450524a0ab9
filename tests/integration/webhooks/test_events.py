"""Which events become deliveries: what was asked for, each once, whatever the order of commits."""

import random
import threading
from collections import Counter
from datetime import datetime
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as Standard
from standardwebhooks.webhooks import WebhookVerificationError

from domain.webhooks import HookType, State, new_secret
from storage.database import autocommit, engine, transaction
from storage.jobs import transitions
from storage.webhooks import feed
from tests import job_rows
from tests.receiver import Receiver
from tests.webhook_rows import (
    alter,
    change,
    delivered,
    endpoint,
    fail,
    give,
    owner_of,
    run,
    succeed,
)

# ---------------------------------------------------------------- what is sent


def test_the_end_of_a_job_is_told_signed_and_thin(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    job_id, secret = job_rows.queued(), new_secret()
    webhook = endpoint(owner_of(job_id), f"{receiver.url}/ok", secret)
    succeed(job_id)
    run(sent)
    (request,) = receiver.requests
    told = Standard(secret).verify(request.body, request.headers)
    assert told["type"] == "job.succeeded"
    assert told["data"] == {"job_id": str(job_id), "status": "succeeded", "kind": "inference"}
    at = job_rows.record(job_id)[-1].at
    assert datetime.fromisoformat(told["timestamp"]) == at
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Millrace/")
    (delivery,) = delivered(webhook)
    assert delivery.state is State.DELIVERED
    assert delivery.message_id == request.id
    assert (delivery.attempts[0].status_code, delivery.attempts[0].answer) == (200, "thank you")
    assert run(sent) == 0, "once"
    with pytest.raises(WebhookVerificationError):
        Standard(new_secret()).verify(request.body, request.headers)


def test_a_failure_says_why(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    job_id, secret = job_rows.queued(), new_secret()
    endpoint(owner_of(job_id), f"{receiver.url}/ok", secret)
    fail(job_id)
    run(sent)
    data = Standard(secret).verify(receiver.requests[0].body, receiver.requests[0].headers)["data"]
    assert data["status"] == "failed"
    assert data["error"] == {
        "code": "ml_failed",
        "message": "The ML service could not do it: no such profile",
        "stage": "inspect",
        "retryable": False,
    }


def test_only_what_was_asked_for_is_told_and_to_its_owner_alone(
    receiver: Receiver, sent: list[tuple[str, str]]
) -> None:
    mine, others = job_rows.queued(), job_rows.queued()
    endpoint(owner_of(mine), f"{receiver.url}/ends")
    endpoint(owner_of(mine), f"{receiver.url}/stages", event_types=[HookType.STAGE])
    endpoint(owner_of(mine), f"{receiver.url}/off", enabled=False)
    succeed(mine)
    succeed(others)
    run(sent)
    told = {(request.path, msgspec.json.decode(request.body)["type"]) for request in receiver.requests}
    assert told == {("/ends", "job.succeeded"), ("/stages", "job.stage")}
    assert all(msgspec.json.decode(one.body)["data"]["job_id"] == str(mine) for one in receiver.requests)


def test_what_happened_before_it_was_registered_or_enabled_is_not_for_it(
    receiver: Receiver, sent: list[tuple[str, str]]
) -> None:
    jobs = [job_rows.queued() for _ in range(3)]
    owner = owner_of(jobs[0])
    give(jobs, owner)
    succeed(jobs[0])
    webhook = endpoint(owner, f"{receiver.url}/ok", event_types=list(HookType))
    change(webhook, enabled=False)
    succeed(jobs[1])
    change(webhook, enabled=True)
    succeed(jobs[2])
    run(sent)
    assert {one.job_id for one in delivered(webhook)} == {jobs[2]}


# ---------------------------------------------------------------- every event once


def collected(limit: int = feed.BATCH) -> None:
    while True:
        with transaction() as connection:
            if feed.hold(connection) and not feed.collect(connection, limit).more:
                return


def test_an_event_that_commits_after_later_ones_is_not_missed(receiver: Receiver) -> None:
    early, late = job_rows.queued(), job_rows.queued()
    webhook = endpoint(owner_of(early), receiver.url)
    give([late], owner_of(early))
    claim = job_rows.claim(early)
    with engine().connect() as slow, slow.begin():
        assert transitions.succeed(slow, claim, message=None, result=None)
        succeed(late)
        collected()
        assert [one.job_id for one in delivered(webhook)] == [late]
    collected()
    collected()
    assert [one.job_id for one in delivered(webhook)] == [early, late]


@pytest.mark.parametrize("seed", range(2))
def test_each_event_becomes_one_delivery_whatever_the_order_of_commits(seed: int, receiver: Receiver) -> None:
    jobs = [job_rows.queued() for _ in range(8)]
    owner = owner_of(jobs[0])
    give(jobs, owner)
    all_of_them = endpoint(owner, receiver.url, event_types=list(HookType))
    stages = endpoint(owner, receiver.url, event_types=[HookType.STAGE])

    def write(own: list[UUID], chance: random.Random) -> None:
        for _ in range(20):
            with engine().connect() as connection, connection.begin():
                connection.execute(text("SELECT pg_current_xact_id()"))
                with autocommit() as other:
                    found = transitions.claim(other, chance.choice(own), "inspect", "w", 60)
                assert found
                assert transitions.interrupt(connection, found[0])
                connection.execute(text("SELECT pg_sleep(:s)"), {"s": chance.random() / 100})

    chance = random.Random(seed)
    writers = [threading.Thread(target=write, args=(jobs[n::4], random.Random(seed + n))) for n in range(4)]
    for writer in writers:
        writer.start()

    def die(chance: random.Random) -> None:
        if chance.random() < 0.3:
            raise InterruptedError  # before the commit

    def collect(chance: random.Random) -> None:
        while any(writer.is_alive() for writer in writers):
            try:
                with transaction() as connection:
                    if feed.hold(connection):
                        feed.collect(connection, chance.randint(1, 9))
                        die(chance)
            except InterruptedError:
                continue

    collectors = [threading.Thread(target=collect, args=(random.Random(n),)) for n in range(2)]
    for one in collectors:
        one.start()
    for one in [*writers, *collectors]:
        one.join()
    collected(chance.randint(1, 9))
    with autocommit() as connection:
        rows = connection.execute(text("SELECT webhook_id, job_id, seq FROM webhook_deliveries")).all()
    expected = Counter(
        (webhook.id, job, event.seq)
        for job in jobs
        for event in job_rows.record(job)[1:]  # the first came before the endpoint
        for webhook in (all_of_them, stages)
        if webhook is all_of_them or event.type == "stage"
    )
    assert len(expected) == 4 * 20 * 3
    assert Counter((row.webhook_id, row.job_id, row.seq) for row in rows) == expected


def test_looking_for_events_never_reads_all_of_them() -> None:
    with autocommit() as connection:
        plan = "\n".join(connection.execute(text(f"EXPLAIN {feed._collect.text}"), {"limit": 10}).scalars())
    assert "ix_job_events_owner_id_txid" in plan
    (condition,) = [line for line in plan.splitlines() if "txid >= " in line]
    assert "owner_id = " in condition, plan


def test_a_restored_database_begins_anew(receiver: Receiver) -> None:
    job_id = job_rows.queued()
    webhook = endpoint(owner_of(job_id), receiver.url)
    alter("webhook_feed", "seen = '9000000000:9000000000:', until = NULL")
    alter("webhooks", "since = '9000000000:9000000000:'")
    collected()
    succeed(job_id)
    collected()
    assert [one.type for one in delivered(webhook)] == ["job.succeeded"]


def test_an_event_whose_job_is_deleted_meanwhile_holds_up_nothing(receiver: Receiver) -> None:
    gone, stays = job_rows.queued(), job_rows.queued()
    webhook = endpoint(owner_of(gone), receiver.url)
    give([stays], owner_of(gone))
    succeed(gone)
    succeed(stays)
    with autocommit() as connection:
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": gone})
    collected()
    assert [one.job_id for one in delivered(webhook)] == [stays]

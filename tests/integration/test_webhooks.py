"""Webhooks in this process: what becomes a delivery, what is sent, what is done about each answer."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as Standard
from standardwebhooks.webhooks import WebhookVerificationError

from domain.errors.inference import MlFailed
from domain.errors.requests import Conflict, NotFound
from domain.errors.webhooks import TooManyWebhooks
from domain.webhooks import HookType, State, Webhook, WebhookChange, WebhookOrder, new_secret
from migrations.__main__ import upgrade
from stack.up import Stack
from storage import accounts, configuration, dispatch, gauges
from storage.database import autocommit, engine, transaction
from storage.jobs import transitions
from storage.webhooks import deliveries, endpoints, feed, log, sealing
from tests import job_rows
from tests.job_rows import account
from tests.own_settings import settings_of
from tests.receiver import Receiver
from workers import webhooks
from workers.webhooks import dispatching
from workers.webhooks import request as requesting
from workers.webhooks.delivering import deliver

SETTINGS = {
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "WEBHOOK_PORTS": "any",
    "WEBHOOK_REQUEST_SECONDS": "1",
    "WEBHOOK_RETRIES": "5,300,1800",
}


@pytest.fixture(scope="module", autouse=True)
def database(in_process: Stack) -> Iterator[None]:
    with settings_of({**in_process.env, **SETTINGS}):
        upgrade()
        yield


@pytest.fixture(autouse=True)
def nothing_there() -> None:
    with autocommit() as connection:
        connection.execute(text("DELETE FROM webhooks"))
    job_rows.clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the dispatcher sends, in place of the broker."""
    messages: list[tuple[str, str]] = []

    def send(task: str, queue: str, calls: list[tuple[str, str]]) -> bool:
        assert (task, queue) == ("webhooks.deliver", "webhooks")
        messages.extend(calls)
        return True

    monkeypatch.setattr(dispatch, "send", send)
    return messages


def run(sent: list[tuple[str, str]]) -> int:
    """One tick, and every message it has sent; the number of messages."""
    webhooks.dispatch()
    taken = list(sent)
    sent.clear()
    for message in taken:
        deliver(*message)
    return len(taken)


def owner_of(job_id: UUID) -> UUID:
    owner: UUID = job_rows.row(job_id)["owner_id"]
    return owner


def endpoint(owner: UUID, url: str, secret: str | None = None, **order: Any) -> Webhook:
    with transaction() as connection:
        wanted = WebhookOrder(url=url, **order)
        return endpoints.create(connection, owner, wanted, secret or new_secret(), limit=10)


def seen(webhook: Webhook) -> Webhook:
    with autocommit() as connection:
        return endpoints.one(connection, webhook.id, None)


def delivered(webhook: Webhook, state: State | None = None) -> list[Any]:
    with autocommit() as connection:
        return log.page(connection, webhook.id, state=state, after=None, limit=100)


def alter(table: str, sets: str) -> None:
    with autocommit() as connection:
        connection.execute(text(f"UPDATE {table} SET {sets}"))


def due_now() -> None:
    alter("webhook_deliveries", "next_attempt_at = now() WHERE state = 'pending'")


def succeed(job_id: UUID) -> None:
    claim = job_rows.claim(job_id)
    with transaction() as connection:
        assert transitions.succeed(connection, claim, message=None, result=None)


def fail(job_id: UUID) -> None:
    claim = job_rows.claim(job_id)
    with transaction() as connection:
        assert transitions.fail(connection, claim, MlFailed(reason="no such profile"))


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


def give(job_ids: list[UUID], owner: UUID) -> None:
    """Make these jobs, and what has happened to them, the owner's."""
    with autocommit() as connection:
        connection.execute(text("UPDATE jobs SET owner_id = :o WHERE id = ANY(:ids)"), {"o": owner, "ids": job_ids})


def change(webhook: Webhook, **values: Any) -> Webhook:
    with transaction() as connection:
        return endpoints.change(connection, webhook.id, None, WebhookChange(**values))


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


# ---------------------------------------------------------------- what is done about an answer


def ping(webhook: Webhook) -> UUID:
    with autocommit() as connection:
        return log.ping(connection, webhook.id).id


@pytest.mark.parametrize(
    ("path", "fault", "status", "answer"),
    [
        ("/500", "status", 500, "thank you"),
        ("/404", "status", 404, "thank you"),
        ("/302", "status", 302, "thank you"),
        ("/204", None, 204, ""),
        ("/endless", None, 200, "x" * 1024),
        ("/holds", "timed_out", None, None),
        ("/drips", "timed_out", None, None),
        ("/no-http", "no_http", None, None),
        ("/leaves", "unreachable", None, None),
    ],
)
def test_each_answer_has_its_name(
    path: str, fault: str | None, status: int | None, answer: str | None, sent: list[tuple[str, str]]
) -> None:
    with Receiver() as canary, Receiver() as receiver:
        receiver.headers = {"Location": canary.url}
        webhook = endpoint(account(), receiver.url + path)
        ping(webhook)
        began = time.monotonic()
        run(sent)
        assert time.monotonic() - began < 2.5, "one limit for the whole request"
        assert canary.connections == 0, "no redirect is followed"
    (delivery,) = delivered(webhook)
    (attempt,) = delivery.attempts
    assert (attempt.fault, attempt.status_code, attempt.answer) == (fault, status, answer)
    assert delivery.state == ("delivered" if fault is None else "pending")
    assert (seen(webhook).failing_since is None) is (fault is None)


def test_nobody_listens(sent: list[tuple[str, str]]) -> None:
    with Receiver() as receiver:
        url = receiver.url
    webhook = endpoint(account(), url)
    ping(webhook)
    run(sent)
    assert delivered(webhook)[0].attempts[0].fault == "unreachable"


def test_it_is_tried_again_by_the_schedule_with_the_same_id_and_then_given_up(
    receiver: Receiver, sent: list[tuple[str, str]]
) -> None:
    secret = new_secret()
    webhook = endpoint(account(), f"{receiver.url}/500", secret)
    ping(webhook)
    waits = []
    for number in range(1, 5):
        assert run(sent) == 1
        assert run(sent) == 0, "not before it is due"
        (delivery,) = delivered(webhook)
        assert [one.number for one in delivery.attempts] == list(range(1, number + 1))
        if delivery.next_attempt_at:
            waits.append((delivery.next_attempt_at - datetime.now(UTC)).total_seconds())
        due_now()
    assert (delivery.state, delivery.next_attempt_at) == (State.FAILED, None)
    for wait, planned in zip(waits, (5, 300, 1800), strict=True):
        assert planned * 0.8 - 2 <= wait <= planned * 1.2
    assert len({request.id for request in receiver.requests}) == 1
    assert len({request.body for request in receiver.requests}) == 1
    for request in receiver.requests:
        assert Standard(secret).verify(request.body, request.headers)["type"] == "ping"
    assert seen(webhook).enabled, "a delivery is given up, not yet the endpoint"


def test_retry_after_is_respected_within_reason(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    for asked, expected in (("600", 600), ("1", 5), ("99999999", 86400), ("soon", 5)):
        receiver.headers = {"Retry-After": asked}
        webhook = endpoint(account(), f"{receiver.url}/503")
        ping(webhook)
        run(sent)
        next_attempt_at = delivered(webhook)[0].next_attempt_at
        assert next_attempt_at
        assert (next_attempt_at - datetime.now(UTC)).total_seconds() == pytest.approx(expected, abs=3)


def test_gone_disables_at_once_and_gives_up_what_waits(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    webhook = endpoint(account(), f"{receiver.url}/410")
    first, second = ping(webhook), ping(webhook)
    webhooks.dispatch()
    assert len(sent) == 2
    for message in sent:
        deliver(*message)
    assert (seen(webhook).enabled, seen(webhook).disabled_reason) == (False, "gone")
    assert len(receiver.requests) == 1
    assert {one.id: one.state for one in delivered(webhook)} == {first: State.FAILED, second: State.FAILED}


def test_an_endpoint_that_only_fails_is_disabled_after_three_days(
    receiver: Receiver, sent: list[tuple[str, str]]
) -> None:
    webhook = endpoint(account(), f"{receiver.url}/status")
    receiver.status = 500
    ping(webhook)
    run(sent)
    alter("webhooks", "failing_since = now() - interval '71 hours'")
    due_now()
    run(sent)
    assert seen(webhook).enabled
    alter("webhooks", "failing_since = now() - interval '73 hours'")
    receiver.status = 200
    due_now()
    run(sent)
    assert (seen(webhook).enabled, seen(webhook).failing_since) == (True, None), "a success is a new beginning"
    receiver.status = 500
    ping(webhook)
    run(sent)
    alter("webhooks", "failing_since = now() - interval '73 hours'")
    due_now()
    run(sent)
    assert (seen(webhook).enabled, seen(webhook).disabled_reason) == (False, "failing")
    assert not delivered(webhook, State.PENDING)
    changed = change(webhook, enabled=True)
    assert (changed.enabled, changed.disabled_reason, changed.failing_since) == (True, None, None)


# ---------------------------------------------------------------- side by side


@contextmanager
def threads(messages: list[tuple[str, str]]) -> Iterator[None]:
    """Every message taken up at once, as by the worker's threads."""
    running = [threading.Thread(target=deliver, args=message) for message in messages]
    for one in running:
        one.start()
    messages.clear()
    yield
    for one in running:
        one.join()


def test_a_slow_endpoint_has_few_places_and_holds_up_no_other(
    receiver: Receiver, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = msgspec.structs.replace(configuration.settings(), webhook_request_seconds=30.0)
    monkeypatch.setattr(requesting, "settings", lambda: patient)
    owner = account()
    slow, quick = endpoint(owner, f"{receiver.url}/holds"), endpoint(owner, f"{receiver.url}/quick")
    for webhook in (slow, quick):
        for _ in range(20):
            ping(webhook)
    webhooks.dispatch()
    with threads(sent):
        receiver.wait("/quick", 20)
        receiver.wait("/holds", 4)
        webhooks.dispatch()
        assert sent == [], "its places are taken"
        assert receiver.at_once["/holds"] == 4
        assert receiver.at_once["/quick"] <= 4
        receiver.let_go.set()
        receiver.wait("/holds", 20)
    assert receiver.at_once["/holds"] <= 4


def test_one_that_fails_is_tried_by_one_at_a_time(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    webhook = endpoint(account(), f"{receiver.url}/500")
    for _ in range(10):
        ping(webhook)
    assert run(sent) == 4
    assert [run(sent) for _ in range(2)] == [1, 1]
    assert len(receiver.requests) == 6


def test_endpoints_that_fail_share_half_of_the_places(
    sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = msgspec.structs.replace(configuration.settings(), webhook_concurrency=6)
    monkeypatch.setattr(dispatching, "settings", lambda: few)
    broken = [endpoint(account(), "http://127.0.0.1:9/") for _ in range(10)]
    alter("webhooks", "failing_since = now()")
    well = endpoint(account(), "http://127.0.0.1:9/")
    for webhook in [*broken, well]:
        ping(webhook)
    webhooks.dispatch()
    assert len(sent) == 3 + 1
    webhooks.dispatch()
    assert len(sent) == 3 + 1


def test_a_lost_message_is_sent_again_and_the_late_one_finds_nothing_to_do(
    receiver: Receiver, sent: list[tuple[str, str]]
) -> None:
    webhook = endpoint(account(), receiver.url)
    ping(webhook)
    webhooks.dispatch()
    (lost,) = sent
    sent.clear()
    webhooks.dispatch()
    assert sent == []
    alter("webhook_deliveries", "lease_until = now() - interval '1 s'")
    assert run(sent) == 1
    deliver(*lost)
    assert len(receiver.requests) == 1


def test_a_broker_that_refuses_costs_nothing_but_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, str]]
) -> None:
    webhook = endpoint(account(), receiver.url)
    ping(webhook)
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "send", lambda *_: False)
        webhooks.dispatch()
    assert run(sent) == 1
    assert delivered(webhook)[0].state is State.DELIVERED


def test_whose_claim_was_given_to_another_records_nothing(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    webhook = endpoint(account(), f"{receiver.url}/holds")
    ping(webhook)
    webhooks.dispatch()
    with threads(sent):
        receiver.wait("/holds")
        alter("webhook_deliveries", "lease_until = now() - interval '1 s'")
        webhooks.dispatch()
        assert len(sent) == 1
    assert delivered(webhook)[0].attempts == [], "the claim no longer stood"
    receiver.let_go.set()
    deliver(*sent[0])
    assert [one.number for one in delivered(webhook)[0].attempts] == [1]
    assert len({request.id for request in receiver.requests}) == 1


# ---------------------------------------------------------------- secrets


def test_secrets_are_encrypted_and_an_old_one_signs_for_a_day(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    first = new_secret()
    webhook = endpoint(account(), receiver.url, first)
    with autocommit() as connection:
        kept = str(connection.execute(text("SELECT secrets FROM webhooks")).scalar_one())
    assert first.removeprefix("whsec_") not in kept
    with transaction() as connection:
        rotated = endpoints.rotate(connection, webhook.id, None)
    assert (rotated.previous_until - datetime.now(UTC)).total_seconds() == pytest.approx(86400, abs=5)
    ping(webhook)
    run(sent)
    (request,) = receiver.requests
    assert request.headers["webhook-signature"].count(" ") == 1
    for secret in (first, rotated.secret):
        Standard(secret).verify(request.body, request.headers)
    alter("webhooks", "secrets = jsonb_set(secrets, '{1,until}', '1')")
    ping(webhook)
    run(sent)
    latest = receiver.requests[-1]
    Standard(rotated.secret).verify(latest.body, latest.headers)
    with pytest.raises(WebhookVerificationError):
        Standard(first).verify(latest.body, latest.headers)


def test_secrets_that_sign_at_once_are_bounded() -> None:
    webhook = endpoint(account(), "http://127.0.0.1:9/")
    with transaction() as connection:
        for _ in range(9):
            endpoints.rotate(connection, webhook.id, None)
        with pytest.raises(Conflict):
            endpoints.rotate(connection, webhook.id, None)


def test_keys_can_be_changed_and_one_that_is_missing_costs_no_attempt(
    receiver: Receiver, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = endpoint(account(), receiver.url)
    ping(webhook)
    config = configuration.settings()
    old = config.jwt_secret

    def with_keys(**changes: str) -> None:
        monkeypatch.setattr(sealing, "settings", lambda: msgspec.structs.replace(config, **changes))

    with_keys(jwt_secret="another one of thirty-two letters")
    assert run(sent) == 1
    (delivery,) = delivered(webhook)
    assert (delivery.attempts, delivery.state, receiver.requests) == ([], State.PENDING, [])
    alter("webhook_deliveries", "lease_until = now() - interval '1 s'")
    with_keys(jwt_secret="another one of thirty-two letters", webhook_encryption_keys=f"{'n' * 32},{old}")
    assert run(sent) == 1
    assert delivered(webhook)[0].state is State.DELIVERED


# ---------------------------------------------------------------- limits and housekeeping


def test_an_owner_has_so_many_even_when_they_come_at_once() -> None:
    owner, refused = account(), []

    def register() -> None:
        try:
            with transaction() as connection:
                endpoints.create(connection, owner, WebhookOrder(url="https://example.com/"), new_secret(), limit=3)
        except TooManyWebhooks as error:
            refused.append(error)

    several = [threading.Thread(target=register) for _ in range(6)]
    for one in several:
        one.start()
    for one in several:
        one.join()
    with autocommit() as connection:
        assert len(endpoints.page(connection, owner, after=None, limit=10)) == 3
    assert len(refused) == 3


def test_an_account_that_owns_nothing_else_can_be_deleted() -> None:
    webhook = endpoint(account(), "http://127.0.0.1:9/")
    ping(webhook)
    with autocommit() as connection:
        owner = connection.execute(text("SELECT owner_id FROM webhooks")).scalar_one()
    accounts.remove(owner)
    with pytest.raises(NotFound):
        seen(webhook)


def test_a_deleted_endpoint_takes_its_log_along(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    webhook = endpoint(account(), receiver.url)
    ping(webhook)
    webhooks.dispatch()
    with autocommit() as connection:
        endpoints.delete(connection, webhook.id, None)
    deliver(*sent[0])
    assert receiver.requests == []
    with pytest.raises(NotFound):
        seen(webhook)


def test_old_deliveries_are_removed_in_batches_and_what_waits_is_not(
    receiver: Receiver, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = endpoint(account(), receiver.url)
    for _ in range(6):
        ping(webhook)
    while run(sent):
        pass
    alter(
        "webhook_deliveries",
        "completed_at = now() - interval '31 days' "
        "WHERE id IN (SELECT id FROM webhook_deliveries ORDER BY id DESC LIMIT 5)",
    )
    waiting = ping(webhook)
    alter("webhook_deliveries", f"created_at = now() - interval '90 days' WHERE id = '{waiting}'")
    batches = []
    real = deliveries.remove_old

    def counted(*args: Any) -> int:
        batches.append(real(*args))
        return batches[-1]

    monkeypatch.setattr(webhooks, "REMOVED", 2)
    monkeypatch.setattr(deliveries, "remove_old", counted)
    webhooks.remove_old()
    assert batches == [2, 2, 1]
    assert len(delivered(webhook)) == 2
    with autocommit() as connection:
        assert connection.execute(text("SELECT count(*) FROM webhook_attempts")).scalar_one() == 1


def test_what_nobody_delivers_shows_as_overdue() -> None:
    webhook = endpoint(account(), "http://127.0.0.1:9/")
    ping(webhook)
    assert gauges.standing().webhooks_overdue == 0
    alter("webhook_deliveries", "next_attempt_at = now() - interval '2 minutes'")
    assert gauges.standing().webhooks_overdue == 1
    alter("webhook_deliveries", "state = 'failed', next_attempt_at = NULL, completed_at = now()")
    assert gauges.standing().webhooks_overdue == 0


def test_a_replay_has_every_attempt_before_it_again(receiver: Receiver, sent: list[tuple[str, str]]) -> None:
    webhook = endpoint(account(), f"{receiver.url}/status")
    receiver.status = 500
    delivery_id = ping(webhook)
    for _ in range(4):
        run(sent)
        due_now()
    assert delivered(webhook)[0].state is State.FAILED
    with autocommit() as connection:
        assert log.replay(connection, webhook.id, delivery_id).state is State.PENDING
    assert run(sent) == 1
    assert delivered(webhook)[0].state is State.PENDING, "it is tried again"
    receiver.status = 200
    due_now()
    run(sent)
    (delivery,) = delivered(webhook)
    assert (delivery.state, len(delivery.attempts)) == (State.DELIVERED, 6)
    assert {request.id for request in receiver.requests} == {delivery.message_id}
    with pytest.raises(NotFound), autocommit() as connection:
        log.replay(connection, endpoint(account(), receiver.url).id, delivery_id)

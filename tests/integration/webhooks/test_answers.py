"""What is done about each answer of a receiver, and about many of them side by side."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from standardwebhooks import Webhook as Standard

from domain.webhooks import State, new_secret
from storage import configuration, dispatch
from tests.job_rows import account
from tests.receiver import Receiver
from tests.webhook_rows import alter, change, delivered, due_now, endpoint, ping, run, seen
from workers import webhooks
from workers.webhooks import dispatching
from workers.webhooks import request as requesting
from workers.webhooks.delivering import deliver

# ---------------------------------------------------------------- what is done about an answer


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
        assert time.monotonic() - began < 5, "one limit for the whole request, else it goes on for a minute"
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

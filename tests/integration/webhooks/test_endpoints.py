"""What is kept of an endpoint: its secrets, its log, and how many there may be."""

import threading
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as Standard
from standardwebhooks.webhooks import WebhookVerificationError

from domain.errors.requests import Conflict, NotFound
from domain.errors.webhooks import TooManyWebhooks
from domain.webhooks import State, WebhookOrder, new_secret
from storage import accounts, configuration, gauges
from storage.database import autocommit, transaction
from storage.webhooks import deliveries, endpoints, log, sealing
from tests.job_rows import account
from tests.receiver import Receiver
from tests.webhook_rows import alter, delivered, due_now, endpoint, ping, run, seen
from workers import webhooks
from workers.webhooks.delivering import deliver

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

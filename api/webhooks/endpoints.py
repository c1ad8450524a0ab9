"""Registering endpoints, changing them, and their secrets."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET

from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.jobs.reading import owner_of
from api.objects import blocking
from api.openapi.operation import documented
from api.rates import Rate, spend
from domain.accounts import Principal
from domain.addresses import check_url
from domain.errors.accounts import RateLimited
from domain.errors.requests import Conflict, Invalid, NotFound
from domain.errors.webhooks import HostUnknown, TooManyWebhooks, UrlRefused
from domain.webhooks import NewSecret, NewWebhook, Webhook, WebhookChange, WebhookOrder, WebhookPage, new_secret
from storage import addresses
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.webhooks import endpoints

RESOLVE_SECONDS = 5.0
CHANGES = Rate("webhook-changes", 60, 60)  # of one account: each may hold a thread until a name is resolved

# As documented errors: never raised themselves.
NO_WEBHOOK = NotFound(what="webhook")
LIMITED = RateLimited(seconds=42, retry_after=42)
_REFUSED = (
    UrlRefused(field="url", reason="its address is not a public one"),
    HostUnknown(field="url", host="hooks.example.invalid"),
    Invalid(field="event_types", reason="Expected `array` of length >= 1"),
)


@post(
    "/webhooks",
    tags=["webhooks"],
    summary="Register an endpoint",
    status_code=201,
    **documented(TooManyWebhooks(limit=10), LIMITED, *_REFUSED, headers={"Location": "The endpoint"}),
)
async def create_webhook(
    data: JSONBody[WebhookOrder],
    request: Request[Any, Any, Any],
    principal: NamedDependency[Principal],
    idempotency_key: IdempotencyKey = None,
) -> Response[NewWebhook]:
    """From now on it is told of the events it asks for, by a POST signed as Standard Webhooks 1.0 has it. The secret
    for checking the signature is shown in this answer and never again: an answer that is given again by its
    `Idempotency-Key` has null in its place, and `/rotate-secret` makes a new one."""
    await spend(request, CHANGES, str(principal.id))
    made: Response[NewWebhook] | None = None
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint(await request.body()))
        made = await blocking(_create, data, principal, once)
    return made or once.answer


@get("/webhooks", tags=["webhooks"], summary="Your endpoints, newest first", sync_to_thread=True)
def list_webhooks(
    principal: NamedDependency[Principal],
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Endpoints on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> WebhookPage:
    """Without their secrets. An admin sees everybody's."""
    with autocommit() as connection:
        found = endpoints.page(connection, owner_of(principal), after=after, limit=limit + 1)
    return WebhookPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@get(
    "/webhooks/{webhook_id:uuid}",
    tags=["webhooks"],
    summary="One endpoint",
    sync_to_thread=True,
    **documented(NO_WEBHOOK),
)
def read_webhook(webhook_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Webhook:
    """`enabled` is false with a `disabled_reason` where it was switched off."""
    with autocommit() as connection:
        return endpoints.one(connection, webhook_id, owner_of(principal))


@put(
    "/webhooks/{webhook_id:uuid}",
    tags=["webhooks"],
    summary="Change an endpoint",
    **documented(
        NO_WEBHOOK,
        LIMITED,
        *_REFUSED,
        body={"Switch it on again": {"enabled": True}, "Another URL": {"url": "https://example.com/hooks/2"}},
    ),
)
async def change_webhook(
    request: Request[Any, Any, Any],
    webhook_id: FromPath[UUID],
    data: JSONBody[WebhookChange],
    principal: NamedDependency[Principal],
) -> Webhook:
    """Only what is sent is changed. Switched off, it is told nothing and what waits for it is given up; switched on, it
    begins anew with what happens from then on."""
    await spend(request, CHANGES, str(principal.id))
    return await blocking(_change, webhook_id, data, principal)


@delete(
    "/webhooks/{webhook_id:uuid}",
    tags=["webhooks"],
    summary="Delete an endpoint with its log",
    sync_to_thread=True,
    **documented(NO_WEBHOOK),
)
def delete_webhook(webhook_id: FromPath[UUID], principal: NamedDependency[Principal]) -> None:
    """What waits for it is not delivered any more; a request on its way may still arrive."""
    with autocommit() as connection:
        endpoints.delete(connection, webhook_id, owner_of(principal))


@post(
    "/webhooks/{webhook_id:uuid}/rotate-secret",
    operation_id="rotate_webhook_secret",
    tags=["webhooks"],
    summary="Give an endpoint a new secret",
    status_code=200,
    sync_to_thread=True,
    **documented(NO_WEBHOOK, Conflict(reason="10 secrets sign already; the oldest does for a day at most")),
)
def rotate_secret(webhook_id: FromPath[UUID], principal: NamedDependency[Principal]) -> Response[NewSecret]:
    """Shown this once. For a day both sign each request, so that the receiver can change over whenever it suits."""
    with transaction() as connection:
        secret = endpoints.rotate(connection, webhook_id, owner_of(principal))
    return Response(secret, headers={"Cache-Control": "no-store"})


def _create(order: WebhookOrder, principal: Principal, once: Once) -> Response[NewWebhook]:
    _check(order.url)
    secret = new_secret()
    with transaction() as connection:
        webhook = endpoints.create(connection, principal.id, order, secret, settings().owner_webhooks)
        fields = msgspec.structs.asdict(webhook)
        headers = {"Location": f"/api/v1/webhooks/{webhook.id}", "Cache-Control": "no-store"}
        # what is kept for the key is kept in the clear: not the secret
        once.record(connection, Response(NewWebhook(**fields, secret=None), status_code=201, headers=headers))
    return Response(NewWebhook(**fields, secret=secret), status_code=201, headers=headers)


def _change(webhook_id: UUID, data: WebhookChange, principal: Principal) -> Webhook:
    if data.url is not UNSET:
        read_webhook.fn(webhook_id, principal)
        _check(data.url)
    with transaction() as connection:
        return endpoints.change(connection, webhook_id, owner_of(principal), data)


def _check(url: str) -> None:
    """Raises UrlRefused, HostUnknown. It is checked again whenever it is called."""
    rules = settings().webhook_rules
    addresses.resolved(*check_url(url, rules), rules, RESOLVE_SECONDS)


routes = [create_webhook, list_webhooks, read_webhook, change_webhook, delete_webhook, rotate_secret]

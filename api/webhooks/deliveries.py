"""The log of an endpoint's deliveries; trying it with a ping, and delivering again."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api.jobs.reading import owner_of
from api.objects import blocking
from api.openapi.operation import documented
from api.rates import Rate, spend
from api.webhooks.endpoints import LIMITED, NO_WEBHOOK
from domain.accounts import Principal
from domain.errors.requests import Conflict, NotFound
from domain.webhooks import Delivery, DeliveryPage, State
from storage.database import autocommit
from storage.webhooks import endpoints, log

ASKED = Rate("webhooks", 60, 60)  # pings and replays of one account: whoever is called has not asked for them

_DISABLED = Conflict(reason="the endpoint is disabled; enable it first")
_NEW = {"attempts": [], "next_attempt_at": "2025-09-15T11:41:58.820748Z"}


@get(
    "/webhooks/{webhook_id:uuid}/deliveries",
    tags=["webhooks"],
    summary="What was delivered to an endpoint, and how",
    sync_to_thread=True,
    **documented(NO_WEBHOOK),
)
def list_deliveries(
    webhook_id: FromPath[UUID],
    principal: NamedDependency[Principal],
    wanted: Annotated[State | None, QueryParameter(name="state", description="Only those in this state")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="Deliveries on a page")] = 20,
    after: Annotated[UUID | None, QueryParameter(description="`next` of the page before")] = None,
) -> DeliveryPage:
    """Newest first, each with its attempts: what was answered, how long it took, when the next one is due."""
    with autocommit() as connection:
        endpoints.one(connection, webhook_id, owner_of(principal))
        found = log.page(connection, webhook_id, state=wanted, after=after, limit=limit + 1)
    return DeliveryPage(items=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@post(
    "/webhooks/{webhook_id:uuid}/test",
    operation_id="ping_webhook",
    tags=["webhooks"],
    summary="Send a ping to an endpoint",
    status_code=202,
    **documented(NO_WEBHOOK, _DISABLED, LIMITED, answer={"Example": {**_NEW, "type": "ping", "job_id": None}}),
)
async def ping(
    request: Request[Any, Any, Any], webhook_id: FromPath[UUID], principal: NamedDependency[Principal]
) -> Delivery:
    """An event of the type `ping` without data, delivered like any other, within about a second."""
    await spend(request, ASKED, str(principal.id))
    return await blocking(_ping, webhook_id, principal)


@post(
    "/webhooks/{webhook_id:uuid}/deliveries/{delivery_id:uuid}/replay",
    operation_id="replay_delivery",
    tags=["webhooks"],
    summary="Deliver an event again",
    status_code=202,
    **documented(NO_WEBHOOK, NotFound(what="delivery"), _DISABLED, LIMITED, answer={"Example": _NEW}),
)
async def replay(
    request: Request[Any, Any, Any],
    webhook_id: FromPath[UUID],
    delivery_id: FromPath[UUID],
    principal: NamedDependency[Principal],
) -> Delivery:
    """Whatever became of it: at once, with all attempts before it again and the same `webhook-id`, by which a receiver
    that has had it knows it. One that waits for its next attempt has it now."""
    await spend(request, ASKED, str(principal.id))
    return await blocking(_replay, webhook_id, delivery_id, principal)


def _ping(webhook_id: UUID, principal: Principal) -> Delivery:
    _require_enabled(webhook_id, principal)
    with autocommit() as connection:
        return log.ping(connection, webhook_id)


def _replay(webhook_id: UUID, delivery_id: UUID, principal: Principal) -> Delivery:
    _require_enabled(webhook_id, principal)
    with autocommit() as connection:
        return log.replay(connection, webhook_id, delivery_id)


def _require_enabled(webhook_id: UUID, principal: Principal) -> None:
    """Raises NotFound, Conflict."""
    with autocommit() as connection:
        webhook = endpoints.one(connection, webhook_id, owner_of(principal))
    if not webhook.enabled:
        raise Conflict(reason="the endpoint is disabled; enable it first")


routes = [list_deliveries, ping, replay]

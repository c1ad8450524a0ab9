"""Is it alive, is it ready, and how does it do: what load balancers, orchestrators and Prometheus ask."""

import time
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, Literal

import anyio
import msgspec
import structlog
from anyio import CapacityLimiter, to_thread
from litestar import MediaType, Request, Response, get
from msgspec import Meta
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from sqlalchemy import exc, text

from api.gauges import engine_gauges
from api.openapi.operation import Content, documented
from api.security import PUBLIC
from domain.errors import MillraceError
from storage import objects
from storage.configuration import settings
from storage.database import autocommit

_log = structlog.get_logger("api.health")
_started = time.monotonic()
CHECK_SECONDS = 2.0

REQUESTS = Counter("millrace_http_requests", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "millrace_http_request_seconds",
    "Time to the first byte of the answer, so that a stream that stays open for hours is not a slow request",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_methods = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"})

_METRICS = """\
# HELP millrace_http_requests_total Requests answered
# TYPE millrace_http_requests_total counter
millrace_http_requests_total{method="POST",route="/api/v1/jobs",status="202"} 17.0
"""

PartState = Literal["ok", "unavailable", "timeout", "not_migrated"]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """This process."""

    name: Annotated[str, Meta(examples=["millrace"])]
    version: Annotated[str, Meta(examples=["0.1.0"])]
    uptime_seconds: Annotated[float, Meta(examples=[86.412])]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """This process answers."""

    status: Annotated[Literal["ok"], Meta(examples=["ok"])] = "ok"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """``parts`` has the state of each neighbour; why one is unavailable stands in the log and not here."""

    status: Literal["ok", "unavailable"]
    parts: Annotated[dict[str, PartState], Meta(examples=[{"postgres": "ok", "redis": "ok", "storage": "ok"}])]


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request; ``route`` is the template and never the path, which holds what users send."""
    method = method if method in _methods else "other"  # a method is whatever a client cares to invent
    REQUESTS.labels(method, route, str(status)).inc()
    SECONDS.labels(method, route).observe(seconds)


@get(
    "/health",
    operation_id="read_health",
    tags=["system"],
    summary="Name, version and uptime of this process",
    sync_to_thread=False,
    **PUBLIC,
)
def health() -> Health:
    """Asks no neighbour; for people and dashboards."""
    return Health(name="millrace", version=version("millrace"), uptime_seconds=round(time.monotonic() - _started, 3))


@get(
    "/health/live",
    operation_id="check_alive",
    tags=["system"],
    summary="This process answers",
    sync_to_thread=False,
    **PUBLIC,
)
def live() -> Live:
    """For an orchestrator's liveness probe: no answer means the process should be restarted. Asks no neighbour."""
    return Live()


@get(
    "/health/ready",
    operation_id="check_ready",
    tags=["system"],
    summary="200 when the neighbours answer, else 503",
    **PUBLIC,
    **documented(
        also={
            503: Content(
                description="A neighbour does not answer",
                schema=Ready,
                example={
                    "status": "unavailable",
                    "parts": {"postgres": "ok", "redis": "timeout", "storage": "ok"},
                },
            )
        }
    ),
)
async def ready(request: Request[Any, Any, Any]) -> Response[Ready]:
    """For load balancers and readiness probes: Postgres (migrated), Redis and the object storage, each asked for at
    most two seconds. Why one is unavailable stands in the log."""
    parts: dict[str, PartState] = {}

    async def check(name: str, ask: Callable[[], Awaitable[PartState]]) -> None:
        parts[name] = "timeout"
        with anyio.move_on_after(CHECK_SECONDS):
            parts[name] = await ask()

    async with anyio.create_task_group() as group:
        group.start_soon(check, "postgres", lambda: _threaded(_postgres))
        group.start_soon(check, "redis", lambda: _redis(request))
        group.start_soon(check, "storage", lambda: _threaded(_storage))
    good = all(state == "ok" for state in parts.values())
    if not good:
        _log.warning("not_ready", **parts)
    return Response(
        Ready(status="ok" if good else "unavailable", parts=dict(sorted(parts.items()))),
        status_code=200 if good else 503,
        headers={"Cache-Control": "no-store"},
    )


@get(
    "/metrics",
    operation_id="read_metrics",
    tags=["system"],
    summary="Prometheus metrics of this process",
    media_type=MediaType.TEXT,
    **PUBLIC,
    **documented(gives={"text/plain": Content(schema={"type": "string"}, example=_METRICS, description="The metrics")}),
)
async def metrics() -> Response[bytes]:
    """In Prometheus' text format. Keep it from the outside: the proxy in `ops/nginx` does."""
    await engine_gauges.refresh()
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


routes = [health, live, ready, metrics]


@cache
def _limiter() -> CapacityLimiter:
    # A neighbour that hangs keeps its thread beyond the two seconds: four, and not all of those handlers run in.
    return CapacityLimiter(4)


async def _threaded(ask: Callable[[], PartState]) -> PartState:
    return await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=_limiter())


def _postgres() -> PartState:
    try:
        with autocommit() as connection:
            found = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    except exc.ProgrammingError:  # no such table
        return "not_migrated"
    except MillraceError as error:
        _log.warning("check_failed", part="postgres", error=str(error.__cause__ or error))
        return "unavailable"
    return "ok" if found else "not_migrated"


async def _redis(request: Request[Any, Any, Any]) -> PartState:
    try:
        await request.app.state.redis.ping()
    except Exception as error:  # whatever it is, Redis does not answer
        _log.warning("check_failed", part="redis", error=str(error))
        return "unavailable"
    return "ok"


def _storage() -> PartState:
    try:
        objects.client().head_bucket(Bucket=settings().s3_bucket)
    except Exception as error:  # botocore's errors share no parent, and all mean the same here
        _log.warning("check_failed", part="storage", error=str(error))
        return "unavailable"
    return "ok"

"""The service's HTTP face: POST /infer, GET and DELETE /jobs/{job_uuid}, GET /health."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from litestar import Litestar, Response, Router, delete, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException, NotAuthorizedException, NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, HeaderParameter, JSONBody

from stack.ml.configuration import Settings
from stack.ml.inference import InferenceRequest
from stack.ml.jobs import Jobs, KeyReused, QueueFull

_STOP_SECONDS = 2.5  # with uvicorn's one second for open requests, well within the five a supervisor grants

IdempotencyKey = Annotated[str, HeaderParameter(name="Idempotency-Key", min_length=1, max_length=255)]


@post("/infer", status_code=202)
async def infer(
    data: JSONBody[InferenceRequest],
    idempotency_key: IdempotencyKey,
    jobs: NamedDependency[Jobs],
    settings: NamedDependency[Settings],
) -> dict[str, Any]:
    """202 once the work is queued, and the same again for the same key; the completion follows by callback.

    400 for a body or header that cannot be read, 401, 422 for an unknown profile or a key sent before for another
    job, 429 with Retry-After when too many jobs wait, 503 with Retry-After until the model is loaded.
    """
    if data.profile not in settings.profiles:
        known = ", ".join(settings.profiles)
        raise HTTPException(status_code=422, detail=f"unknown profile {data.profile!r}; known profiles: {known}")
    if not jobs.ready:
        raise HTTPException(status_code=503, detail="the model is still loading", headers={"Retry-After": "1"})
    try:
        jobs.accept(idempotency_key, data)
    except KeyReused:
        raise HTTPException(status_code=422, detail="this Idempotency-Key was sent for another job") from None
    except QueueFull:
        raise HTTPException(
            status_code=429, detail="too many jobs wait already", headers={"Retry-After": "5"}
        ) from None
    return {"job_uuid": data.job_uuid, "status": "accepted"}


@get("/jobs/{job_uuid:uuid}")
async def job_status(job_uuid: FromPath[UUID], jobs: NamedDependency[Jobs]) -> Response[dict[str, Any]]:
    """`{job_uuid, status}`, and once it has ended the fields of its completion; 404 with status `unknown`."""
    job = jobs.find(job_uuid)
    if job is None:
        return Response({"job_uuid": job_uuid, "status": "unknown"}, status_code=404)
    completion = job.completion
    return Response({"job_uuid": job_uuid, "status": job.status, **(completion.body() if completion else {})})


@delete("/jobs/{job_uuid:uuid}", status_code=204)
async def cancel(job_uuid: FromPath[UUID], jobs: NamedDependency[Jobs]) -> None:
    """204 once the job is marked to be dropped, also when it has ended already; 404 when it is not known."""
    if not jobs.cancel(job_uuid):
        raise NotFoundException(f"no job {job_uuid}")


@get("/health")
async def health(jobs: NamedDependency[Jobs]) -> Response[dict[str, str]]:
    """200 `{status: "ok"}` once the model is loaded, 503 `{status: "loading"}` before."""
    if jobs.ready:
        return Response({"status": "ok"})
    return Response({"status": "loading"}, status_code=503)


def create_app(settings: Settings) -> Litestar:
    """The ASGI application; its lifespan loads the model (in a thread, /health says when) and stops the workers."""
    jobs = Jobs(settings)
    expected = f"Bearer {settings.ml_service_token}".encode()

    def bearer(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        """Raises 401 unless the shared token was sent."""
        sent = connection.headers.get("Authorization", "")
        if not hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), expected):
            raise NotAuthorizedException("a valid bearer token is needed")

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        jobs.start()
        try:
            yield
        finally:
            await asyncio.to_thread(jobs.stop, _STOP_SECONDS)

    return Litestar(
        route_handlers=[health, Router("/", route_handlers=[infer, job_status, cancel], guards=[bearer])],
        dependencies={
            "jobs": Provide(lambda: jobs, sync_to_thread=False),
            "settings": Provide(lambda: settings, sync_to_thread=False),
        },
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=64 * 1024,
    )

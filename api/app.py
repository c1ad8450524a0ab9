"""The API: every part is wired together here and nowhere else."""

from itertools import chain
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import MutableScopeHeaders
from litestar.di import Provide
from litestar.routes import HTTPRoute
from litestar.types import Message, Scope

from api import console, health, openapi, problems, rates, stopping
from api.encodings import as_it_is
from api.logs import RequestEnvelope
from api.security import current_principal, guard
from domain.modules import enabled, floor
from storage import logs
from storage.configuration import settings

PREFIX = "/api/v1"


def create_app() -> Litestar:
    """The ASGI application of this process, with the routes of the capabilities that are switched on.

    A capability's module in ``api`` may have ``routes`` (mounted below /api/v1), ``root_routes`` (at the root) and
    ``lifespan`` (async context managers, entered at start). Run it with ``uvicorn --factory api.app:create_app
    --no-server-header --no-access-log``.

    Raises:
        BadSetting: a setting is missing or wrong, or MILLRACE_MODULES names an unknown capability.
    """
    config = settings()
    logs.configure(config)
    words = enabled(config.modules)
    modules = floor("api", words)

    def offered(name: str) -> list[Any]:
        return list(chain.from_iterable(getattr(module, name, ()) for module in modules))

    app = Litestar(
        route_handlers=[
            Router(PREFIX, route_handlers=offered("routes")),
            *health.routes,
            *console.routes(words),
            *offered("root_routes"),
        ],
        lifespan=[stopping.lifespan, rates.lifespan, *offered("lifespan")],
        guards=[guard, as_it_is],
        dependencies={"principal": Provide(current_principal)},
        before_send=[_allow],
        exception_handlers={Exception: problems.answer},
        openapi_config=openapi.config(),
        logging_config=None,  # storage.logs has done it
        debug=False,  # whatever LITESTAR_DEBUG says: its error pages show source and variables
    )
    app.asgi_handler = RequestEnvelope(app.asgi_handler)
    return app


async def _allow(message: Message, scope: Scope) -> None:
    """Litestar makes the answer to OPTIONS with a path's first handler: its `Allow` knows of none that came later."""
    if message["type"] == "http.response.start" and scope.get("method") == "OPTIONS":
        app, template = scope["litestar_app"], scope.get("path_template")
        methods = {
            method
            for route in app.routes
            if isinstance(route, HTTPRoute) and route.path_format == template
            for method in route.methods
        }
        if methods:
            MutableScopeHeaders.from_message(message)["Allow"] = ", ".join(sorted(methods))

"""The OpenAPI document (/docs/openapi.json) and the pages that show it (/docs, /docs/errors).

The pages are made here, without a script and with nothing fetched from anywhere: Litestar's render plugins load theirs
from a CDN, which a closed network and a strict Content-Security-Policy forbid, and the one bundle on PyPI
(swagger-ui-bundle 1.1.0) holds Swagger UI 4.15, which cannot read OpenAPI 3.1.
"""

from importlib.metadata import version
from typing import Any

from litestar import MediaType, Request, Router, get
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, License, SecurityScheme, Tag
from litestar.types import Method

from api.openapi import document, page
from api.openapi.style import POLICY
from api.problems import language_of
from domain.accounts import SESSION_COOKIE
from storage.configuration import settings

TAGS = {
    "accounts": "Registering, logging in, and the accounts themselves.",
    "files": "A user's own files: streamed in, downloaded in ranges, linked to by presigned URLs.",
    "uploads": "Files sent piece by piece, resumed after any interruption: tus 1.0.0.",
    "jobs": "Work on a file: accepted at once, done later, watched while it happens.",
    "events": "What happens to jobs, live: one job's stream, all of one's jobs, tickets for browsers.",
    "archives": "What is inside a job's archive, read from its directory alone.",
    "results": "What the ML service found: parsed rows, a page at a time, and the file.",
    "recordings": "Recordings of calls: mailboxes they arrive in, fetching, metadata, and the audio itself.",
    "webhooks": "URLs of your own that are told what happens to your jobs, signed and retried.",
    "calls": "Telephone calls as the exchange tells of them, and which recording is of which.",
    "ML service": "What the ML service calls back, with its own token.",
    "system": "Health, readiness and metrics.",
}


def config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Millrace",
        version=version("millrace"),
        summary="Uploads in, task chains through, parsed results out, watched live.",
        description=document.DESCRIPTION,
        operation_id_creator=_operation_id,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http", scheme="bearer", bearer_format="JWT", description="From POST /api/v1/auth/login"
                ),
                "session": SecurityScheme(
                    type="apiKey",
                    name=SESSION_COOKIE,
                    security_scheme_in="cookie",
                    description="The same token as a cookie, for pages of this site: log in with `session`",
                ),
                "mlService": SecurityScheme(
                    type="http", scheme="bearer", description="`ML_SERVICE_TOKEN`, which only the ML service has"
                ),
            }
        ),
        security=[{"bearer": []}, {"session": []}],
        tags=[Tag(name=name, description=description) for name, description in TAGS.items()],
        openapi_router=Router("/docs", route_handlers=[], include_in_schema=False, opt={"public": True}),
        render_plugins=[Json(), Page(settings().public_url.rstrip("/"))],
    )


def _operation_id(handler: HTTPRouteHandler, method: HttpMethod | Method, _: Any) -> str:
    """The handler's own name: generated clients make functions of it."""
    return f"head_{handler.handler_name}" if method == HttpMethod.HEAD else handler.handler_name


class Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, document.completed(openapi_schema, request.app))


class Page(OpenAPIRenderPlugin):
    def __init__(self, base: str) -> None:
        super().__init__(path="/")
        self._base = base  # of the commands it shows

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        _headers(request)
        whole = document.completed(openapi_schema, request.app)
        return page.operations(whole, language_of(request), self._base).encode()

    def receive_router(self, router: Router) -> None:
        router.register(errors)


@get("/errors", media_type=MediaType.HTML)
async def errors(request: Request[Any, Any, Any]) -> str:
    """Where the ``type`` of every problem points to."""
    _headers(request)
    return page.errors(language_of(request))


def _headers(request: Request[Any, Any, Any]) -> None:
    request.scope["state"].setdefault("headers", {}).update(
        {
            "Content-Security-Policy": POLICY,
            "Content-Language": language_of(request),
            "Vary": "Accept-Language",
        }
    )

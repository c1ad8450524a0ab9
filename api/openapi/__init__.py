"""The OpenAPI document (/docs/openapi.json) and the pages that show it (/docs, /docs/errors).

The pages are made here, without a script and with nothing fetched from anywhere: Litestar's render plugins load theirs
from a CDN, which a closed network and a strict Content-Security-Policy forbid, and the one bundle on PyPI
(swagger-ui-bundle 1.1.0) holds Swagger UI 4.15, which cannot read OpenAPI 3.1.
"""

from importlib.metadata import version
from typing import Any

from litestar import MediaType, Request, Router, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, License, SecurityScheme, Tag

from api.openapi import document, page

TAGS = {
    "accounts": "Registering, logging in, and the accounts themselves.",
    "files": "A user's own files: streamed in, downloaded in ranges, linked to by presigned URLs.",
    "jobs": "Work on a file: accepted at once, done later, watched while it happens.",
    "archives": "What is inside a job's archive, read from its directory alone.",
    "results": "What the ML service found: parsed rows, a page at a time, and the file.",
    "ml service": "What the ML service calls back, with its own token.",
    "system": "Health, readiness and metrics.",
}


def config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Millrace",
        version=version("millrace"),
        summary="Uploads in, task chains through, parsed results out, watched live.",
        description=document.DESCRIPTION,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        use_handler_docstrings=True,
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http", scheme="bearer", bearer_format="JWT", description="From POST /api/v1/auth/login"
                )
            }
        ),
        security=[{"bearer": []}],
        tags=[Tag(name=name, description=description) for name, description in TAGS.items()],
        openapi_router=Router("/docs", route_handlers=[], include_in_schema=False, opt={"public": True}),
        render_plugins=[Json(), Page()],
    )


class Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return self.render_json(request, document.completed(openapi_schema))


class Page(OpenAPIRenderPlugin):
    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        _allow_style(request)
        return page.operations(document.completed(openapi_schema)).encode()

    def receive_router(self, router: Router) -> None:
        router.register(errors)


@get("/errors", media_type=MediaType.HTML)
async def errors(request: Request[Any, Any, Any]) -> str:
    """Where the ``type`` of every problem points to."""
    _allow_style(request)
    return page.errors()


def _allow_style(request: Request[Any, Any, Any]) -> None:
    request.scope["state"].setdefault("headers", {})["Content-Security-Policy"] = page.POLICY

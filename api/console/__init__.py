"""The console at /: one page for people, plain HTML, CSS and ES modules, served as they lie in this folder.

Nothing is built and nothing is fetched from anywhere else, so the strictest policy fits. A capability has a panel when
a file of its word lies here (``jobs.js``): it is found as everything of a capability is found, by its name. Such a
module exports ``open(main, path, closed, account)``, and ``isFor(account)`` where not everybody is shown it; its words
stand in ``words.js`` like all others.
"""

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from api.security import PUBLIC
from domain.errors.requests import NotFound

TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = "page.html"


class Asset(msgspec.Struct, frozen=True):
    """A file as it is served; ``etag`` changes with its content."""

    content: bytes
    media_type: str
    etag: str


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


ASSETS = {
    one.name: _asset(one.name, one.read_bytes())
    for one in files(__package__).iterdir()
    if one.name.rpartition(".")[2] in TYPES
}


def routes(words: Iterable[str]) -> list[HTTPRouteHandler]:
    """The page with the panels of these capabilities, those that have one, and the files it is made of."""
    panels = " ".join(word for word in words if f"{word}.js" in ASSETS)
    page = _asset(PAGE, ASSETS[PAGE].content.replace(b'data-panels=""', f'data-panels="{panels}"'.encode()))

    @get("/", include_in_schema=False, sync_to_thread=False, **PUBLIC)
    def show_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _answer(request, page)

    return [show_page, show_asset]


@get("/console/{name:str}", include_in_schema=False, sync_to_thread=False, **PUBLIC)
def show_asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Raises NotFound."""
    if name not in ASSETS or name == PAGE:
        raise NotFound(what="path")
    return _answer(request, ASSETS[name])


def _answer(request: Request[Any, Any, Any], asset: Asset) -> Response[bytes]:
    # no-cache: asked for each time and answered 304, so that a new release never meets yesterday's modules
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in known:
        return Response(b"", status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)

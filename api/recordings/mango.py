"""What the telephone exchange calls: notifications of calls, signed with a salt that only it and we know.

Each is kept as it came and answered; what it says of a call is applied by a task. Source: Mango Office, "VPBX API".
"""

from collections.abc import Callable, Coroutine
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, post
from litestar.background_tasks import BackgroundTask
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from api.objects import blocking
from api.openapi.operation import Content, documented
from api.rates import client_address
from api.security import PUBLIC
from domain.errors.recordings import SignatureRefused, SourceRefused
from domain.errors.requests import BodyTooLarge, MalformedRequest, UnsupportedMedia
from domain.recordings.mango import Kind, form_of, kind_of, verified
from storage import dispatch
from storage.configuration import settings
from storage.database import autocommit
from storage.recordings import mango

FORM = "application/x-www-form-urlencoded"
MAX_BODY = 128 * 1024  # bytes; the longest the vendor sends are some KiB, and a Cyrillic letter takes six in a form
QUEUE = "io"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A notification was kept."""

    kind: Annotated[Kind, Meta(examples=["call"])]
    repeated: Annotated[bool, Meta(description="It was here before; nothing is done again", examples=[False])]


async def _take(request: Request[Any, Any, Any], kind: Kind | None) -> Response[Taken]:
    source = client_address(request)
    _check_source(source)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != FORM:
        raise UnsupportedMedia(expected=FORM, received=media)
    config = settings()
    json = verified(form_of(await request.body()), config.mango_api_key, config.mango_api_salt)
    kind = kind or kind_of(json)
    number = await blocking(_keep, kind, json, source)
    # after the answer: the exchange does not wait for our broker, and the tick knows of the row anyway
    after = None if number is None else BackgroundTask(dispatch.send, "recordings.apply", QUEUE, [(str(number),)])
    return Response(Taken(kind=kind, repeated=number is None), status_code=200, background=after)


def _check_source(source: str) -> None:
    """Raises SourceRefused."""
    try:
        address = ip_address(source)
    except ValueError:
        raise SourceRefused(address=source) from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not any(address in network for network in settings().mango_networks if network.version == address.version):
        raise SourceRefused(address=source)


def _keep(kind: Kind, json: bytes, source: str) -> int | None:
    with autocommit() as connection:
        return mango.keep(connection, kind, json, source)


# ---------------------------------------------------------------- the paths

_SENT = {
    Kind.CALL: (
        '{"entry_id":"MToxMDA2","call_id":"MToxMDA2bGVn","timestamp":1757936400,"seq":1,"call_state":"Appeared",'
        '"location":"ivr","from":{"number":"79161234567"},"to":{"number":"74951234567","line_number":"74951234567"}}'
    ),
    Kind.SUMMARY: (
        '{"entry_id":"MToxMDA2","call_direction":1,"from":{"number":"79161234567"},"to":{"extension":"101"},'
        '"line_number":"74951234567","create_time":1757936400,"forward_time":1757936401,"talk_time":1757936403,'
        '"end_time":1757936530,"entry_result":1,"disconnect_reason":1110}'
    ),
    Kind.RECORDING: (
        '{"recording_id":"MToxMDA2cmVj","recording_state":"Completed","seq":2,"entry_id":"MToxMDA2",'
        '"call_id":"MToxMDA2bGVn","completion_code":1000}'
    ),
    Kind.RECORD_ADDED: '{"entry_id":"MToxMDA2","recording_id":"MToxMDA2cmVj"}',
}
_SCHEMA = {
    "type": "object",
    "description": "What the exchange signs: `json` exactly as it is, between its key and the salt",
    "required": ["vpbx_api_key", "sign", "json"],
    "properties": {
        "vpbx_api_key": {"type": "string", "description": "`MANGO_API_KEY`"},
        "sign": {"type": "string", "description": "Hex SHA-256 of key, `json` and `MANGO_API_SALT`, in lower case"},
        "json": {"type": "string", "description": "The notification"},
    },
}
_ERRORS = (
    SignatureRefused(),
    SourceRefused(address="192.0.2.7"),
    MalformedRequest(reason="a field is there twice"),
    UnsupportedMedia(expected=FORM, received="application/json"),
    BodyTooLarge(limit=MAX_BODY),
)


def _form(kind: Kind) -> dict[str, Content]:
    example = {"vpbx_api_key": "key", "sign": "0" * 64, "json": _SENT[kind]}
    return {FORM: Content(schema=_SCHEMA, example=example)}


def _route(kind: Kind, operation_id: str, summary: str, description: str) -> HTTPRouteHandler:
    async def take(request: Request[Any, Any, Any]) -> Response[Taken]:
        return await _take(request, kind)

    take.__doc__ = description
    handler: Callable[[Callable[..., Coroutine[Any, Any, Any]]], HTTPRouteHandler] = post(
        f"/mango/events/{kind}",
        operation_id=operation_id,
        tags=["calls"],
        summary=summary,
        status_code=200,
        request_max_body_size=MAX_BODY,
        **PUBLIC,
        **documented(*_ERRORS, takes=_form(kind), answer={"Example": {"kind": str(kind)}}),
    )
    return handler(take)


@post(
    "/mango/webhook",
    operation_id="take_mango_notification",
    tags=["calls"],
    summary="The exchange tells anything of a call",
    status_code=200,
    request_max_body_size=MAX_BODY,
    **PUBLIC,
    **documented(*_ERRORS, takes=_form(Kind.SUMMARY), answer={"Example": {"kind": "summary"}}),
)
async def take_any(request: Request[Any, Any, Any]) -> Response[Taken]:
    """One URL for all of them, where something stands in between that knows only one: what it is about is told by its
    fields. What calls are not made of is kept as `other`."""
    return await _take(request, None)


routes = [
    _route(
        Kind.CALL,
        "take_call_event",
        "The exchange tells of a leg of a call",
        "One leg of a call is in another state. They come out of order, and more than once.",
    ),
    _route(
        Kind.SUMMARY,
        "take_call_summary",
        "The exchange tells that a call is over",
        "Once for each call, after its end: direction, numbers, times and how it ended.",
    ),
    _route(
        Kind.RECORDING,
        "take_recording_event",
        "The exchange tells that it records",
        "A recording was started, goes on or is completed at the exchange.",
    ),
    _route(
        Kind.RECORD_ADDED,
        "take_record_added",
        "The exchange tells that a record is ready",
        "The file of a recording can be had at the exchange.",
    ),
    take_any,
]

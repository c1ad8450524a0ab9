"""What an upload is to the rest of the API: its fields, and its file as an object in the store."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import structlog
from litestar import Request

from api.objects import blocking, gateway, unbroken
from api.uploads.body import BESIDE_BYTES, Body, Form
from api.uploads.intake import CHUNK_BYTES, Intake
from api.uploads.parts import Promise, Writer
from api.uploads.places import place
from domain.digests import announced
from domain.errors.neighbours import DatabaseUnavailable
from domain.errors.requests import MalformedRequest, UnsupportedMedia
from domain.files import UNNAMED, StoredObject, clean_name, content_type_of, kind_of, name_from
from domain.identity import new_id
from storage import discarding, objects, quotas, twins
from storage.configuration import settings
from storage.database import autocommit

T = TypeVar("T")
MULTIPART = "multipart/form-data"

log = structlog.get_logger(__name__)


class ReceivedForm:
    """What came: text ``fields`` (at most 16, 64 KiB) and at most one ``file``."""

    def __init__(self, owner_id: UUID | None = None, *, hash_only: bool = False) -> None:
        self.fields: dict[str, str] = {}
        self.file: StoredObject | None = None
        self.owner_id = owner_id
        self.hash_only = hash_only
        self._kept = False

    def fingerprint(self) -> bytes:
        """SHA-256 of what the form says: its fields in any order, its file's name and content."""
        file = None if self.file is None else (self.file.name, self.file.sha256)
        return hashlib.sha256(msgspec.json.encode((sorted(self.fields.items()), file))).digest()

    async def keep(self, write: Callable[[], T]) -> T:
        """The answer of ``write()``, called in a thread; when it returns the object stays, when it raises it goes.

        It is not broken off by a cancellation, so that a row that was written always has its object. When the
        connection to the database broke, nobody knows whether the row was committed: the object stays, and goes with
        the leftovers if no row names it.
        """

        async def writing() -> T:
            try:
                answer = await blocking(write)
            except DatabaseUnavailable:
                self._kept = True
                raise
            self._kept = True
            if self.file is not None:
                await blocking(twins.drop_unless_named, self.file)
            return answer

        return await unbroken(writing())

    async def allowed(self, size: int) -> None:
        """Raises StorageQuotaExceeded when the owner has no room for so much, as far as one can see now."""
        if self.owner_id is not None and quotas.limited():
            await blocking(_check_quota, self.owner_id, size)

    async def discard(self) -> None:
        """Delete the object unless it is kept."""
        if self.file is None or self._kept or self.hash_only:
            return
        await blocking(discarding.discard, [self.file.key])


@asynccontextmanager
async def receive(
    request: Request[Any, Any, Any],
    limit: int,
    *,
    owner_id: UUID | None = None,
    raw: bool = False,
    hash_only: bool = False,
) -> AsyncIterator[ReceivedForm]:
    """Read the request's body, its file straight into the store; at the end of the block what was not kept is deleted.

    ``limit`` is for the whole body, in bytes; the route needs ``request_max_body_size=None``. With ``raw`` a body that
    is not multipart is the file itself, named by Content-Disposition or the query parameter ``name``. With
    ``hash_only`` nothing is stored: the file is only read, to know its ``fingerprint``. With ``owner_id`` it counts as
    one of that owner's uploads under way.

    Raises:
        BodyTooLarge: the announced length (before anything is read) or what comes is over ``limit``.
        UnsupportedMedia: not multipart/form-data, and ``raw`` is off.
        MalformedRequest: no boundary, cut short, two files, a field twice, more fields than allowed, no digest.
        DigestMismatch: the body, or the file in the form, is not what a digest field announced.
        TooManyUploads: the owner has as many under way as may be; nothing was read.
        StorageQuotaExceeded: the owner has no room for the announced length, and nothing was read; or, where none was
            announced, for what has come.
        ClientGone: the client closed the connection in the middle.
        UploadTooSlow: it sent next to nothing for some time.
        StorageUnavailable: the store refused, or broke off; nothing was kept.
    """
    form = ReceivedForm(owner_id, hash_only=hash_only)
    async with AsyncExitStack() as around:
        around.enter_context(gateway().upload())
        if owner_id is not None:
            await around.enter_async_context(place(request, owner_id))
        try:
            content_type = request.headers.get("content-type", "")
            media_type = content_type.partition(";")[0].strip().lower()
            body = Body(request, limit, settings().upload_min_bytes_per_second)
            if not hash_only:
                await _room(form, body, media_type)
            if media_type == MULTIPART:
                await _receive_form(form, Form(body, content_type))
            elif raw:
                await _receive_raw(form, body, request, content_type)
            else:
                raise UnsupportedMedia(expected=MULTIPART, received=media_type)
            if owner_id is not None and form.file is not None:
                form.file = await blocking(twins.found, owner_id, form.file)
            yield form
        finally:
            await unbroken(form.discard())


async def _room(form: ReceivedForm, body: Body, media_type: str) -> None:
    """Refuse what surely exceeds the quota before it is sent; the last word has the transaction that writes the row."""
    least = body.length or 0
    if media_type == MULTIPART:
        least -= BESIDE_BYTES
        if least <= 0:
            return  # it may well be without a file
    await form.allowed(least)


def _check_quota(owner_id: UUID, least: int) -> None:
    with autocommit() as connection:
        quotas.check(connection, owner_id, least)


async def _receive_form(received: ReceivedForm, form: Form) -> None:
    form.body.digest()
    try:
        while segment := await form.until_file():
            promise = form.promise()
            name = name_from(segment.header("Content-Disposition", ""))
            intake = Intake(form.file(), announced(segment.headerlist))
            head = await intake.head()
            if not name and not head:
                continue  # what a browser sends where no file was chosen
            if received.file is not None:
                raise MalformedRequest(reason="there is more than one file", field=segment.name)
            declared = segment.content_type
            received.file = await _store(received, intake, promise, name or UNNAMED, declared, form.body.limit)
            await intake.check()
        received.fields = form.fields
        await form.body.check()
    finally:
        await form.close()


async def _receive_raw(received: ReceivedForm, body: Body, request: Request[Any, Any, Any], content_type: str) -> None:
    promise = None if body.length is None else Promise(least=body.length, most=body.length)
    name = name_from(request.headers.get("content-disposition", "")) or clean_name(request.query_params.get("name", ""))
    chunks = body.chunks()
    intake = Intake(chunks, body.announced)
    try:
        received.file = await _store(received, intake, promise, name or UNNAMED, content_type, body.limit)
        await intake.check()
    finally:
        await chunks.aclose()


async def _store(
    received: ReceivedForm, intake: Intake, promise: Promise | None, name: str, declared: str | None, limit: int
) -> StoredObject:
    head = await intake.head()
    object_id = new_id()
    key = objects.input_key(object_id)
    content_type = content_type_of(head, declared, name)
    if received.hash_only:
        while await intake.read(CHUNK_BYTES):
            pass
    else:
        await Writer(gateway(), key, content_type, limit, received.allowed).write(intake, promise)
    return StoredObject(
        id=object_id,
        key=key,
        name=name,
        size=intake.size,
        sha256=await intake.sha256(),
        content_type=content_type,
        kind=kind_of(head),
        local_headers=await intake.local_headers(),
    )

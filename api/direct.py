"""Uploads straight to the object storage: announced here, sent there by presigned URLs, completed here.

The bytes do not pass through the API on their way in. Before there is a file they are read back once: only so is it
known what SHA-256 they have, for S3's own checksums are of parts, and of what a client chose to send. It costs what a
download costs, two at a time in a process; `complete` answers when it is done, and asked again answers the same file.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.downloads import read_part
from api.idempotency import IdempotencyKey, Once, fingerprint, idempotent
from api.objects import blocking, gateway, unbroken
from api.openapi.operation import documented
from api.uploads import StoredObject
from api.uploads.intake import CHUNK_BYTES, Intake
from domain import direct as rules
from domain.accounts import Principal
from domain.digests import Announced
from domain.direct import Completion, DirectOrder, DirectUpload, Part
from domain.errors import MillraceError
from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import BodyTooLarge, NotFound
from domain.errors.uploads import DigestMismatch, StorageQuotaExceeded, TooManyUploads, UploadIncomplete
from domain.files import UNKNOWN_TYPE, UNNAMED, File, clean_name, content_type_of, kind_of
from domain.identity import new_id
from storage import direct, discarding, files, objects, twins
from storage.configuration import settings
from storage.database import autocommit, transaction
from storage.direct import Begun

HOLD_SECONDS = 3600.0  # an upload that is being verified does not expire under our hands

_turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

_NO_UPLOAD = NotFound(what="upload")
_QUOTA = StorageQuotaExceeded(unit="bytes", limit=10 * 1024**3, used=10 * 1024**3 - 4096, asked=8885)


@post(
    "/uploads/direct",
    operation_id="begin_direct_upload",
    tags=["files"],
    summary="Begin an upload straight to the storage",
    **documented(
        BodyTooLarge(limit=5 * 1024**3),
        _QUOTA,
        TooManyUploads(limit=100),
        StorageUnavailable(),
        headers={"Location": "The upload"},
    ),
)
async def begin_upload(
    request: Request[Any, Any, Any],
    data: JSONBody[DirectOrder],
    principal: NamedDependency[Principal],
    idempotency_key: IdempotencyKey = None,
) -> Response[DirectUpload]:
    """For each part a presigned URL to PUT it to, with exactly its `size`; no token goes there. Small files are one
    part. Nothing is a file before `/complete`. What is not completed by `expires_at` is deleted."""
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint(await request.body()))
        await blocking(_begin, data, principal.id, once)
    return once.answer


@get(
    "/uploads/direct/{direct_id:uuid}",
    operation_id="read_direct_upload",
    tags=["files"],
    summary="An upload straight to the storage, as it stands",
    sync_to_thread=True,
    **documented(_NO_UPLOAD, StorageUnavailable()),
)
def read_upload(direct_id: FromPath[UUID], principal: NamedDependency[Principal]) -> DirectUpload:
    """With fresh URLs, and the `etag` of each part the storage has."""
    return _seen(_found(direct_id, principal.id))


@post(
    "/uploads/direct/{direct_id:uuid}/complete",
    operation_id="complete_direct_upload",
    tags=["files"],
    summary="Complete an upload straight to the storage",
    **documented(
        _NO_UPLOAD,
        UploadIncomplete(reason="part 2 has not arrived"),
        DigestMismatch(field="sha256", algorithm="sha-256"),
        _QUOTA,
        StorageUnavailable(),
        body={"All": {"parts": [{"number": 1, "etag": '"5d41402abc4b2a76b9719d911017c592"'}]}, "As it is": {}},
        headers={"Location": "Where it can be downloaded"},
    ),
)
async def complete_upload(
    request: Request[Any, Any, Any],
    direct_id: FromPath[UUID],
    data: JSONBody[Completion],
    principal: NamedDependency[Principal],
    idempotency_key: IdempotencyKey = None,
) -> Response[File]:
    """The file, once its bytes have been read back and are what was announced, which takes as long as a download. 409
    `upload_incomplete` names a part that is missing or has another size: send it, and complete again. 422
    `digest_mismatch` ends the upload. When the answer was lost, ask again."""
    async with idempotent(request, principal.id, idempotency_key) as once:
        once.same_body(fingerprint(await request.body()))
        # who asks again while the first request is at it waits for it, instead of reading everything a second time
        async with _turns.setdefault(direct_id, asyncio.Lock()):
            await unbroken(_complete(direct_id, data, principal.id, once))
    return once.answer


@delete(
    "/uploads/direct/{direct_id:uuid}",
    operation_id="abort_direct_upload",
    tags=["files"],
    summary="Abort an upload straight to the storage",
    sync_to_thread=True,
    **documented(_NO_UPLOAD, StorageUnavailable()),
)
def abort_upload(direct_id: FromPath[UUID], principal: NamedDependency[Principal]) -> None:
    """What was sent is deleted, and its URLs are dead."""
    with autocommit() as connection:
        begun = direct.remove(connection, direct_id, principal.id)
    if begun is None:
        raise NotFound(what="upload")
    direct.delete_leftovers(begun)


# ---------------------------------------------------------------- begin


def _begin(order: DirectOrder, owner_id: UUID, once: Once) -> None:
    config = settings()
    if order.size > config.max_upload_bytes:
        raise BodyTooLarge(limit=config.max_upload_bytes)
    upload_id = new_id()
    key = objects.input_key(upload_id)
    content_type = content_type_of(b"", order.content_type, order.name)
    begun = Begun(
        id=upload_id,
        upload_id=objects.create_multipart(key, content_type),
        name=clean_name(order.name) or UNNAMED,
        size=order.size,
        part_size=rules.part_size(order.size, order.part_size),
        content_type=order.content_type,
        sha256=order.sha256 and order.sha256.lower(),
        expires_at=datetime.now(UTC),  # the database says when
    )
    try:
        with transaction() as connection:
            begun = direct.begin(
                connection, owner_id, begun, min(config.direct_upload_seconds, config.upload_leftover_seconds)
            )
            location = f"/api/v1/uploads/direct/{begun.id}"
            headers = {"Location": location, "Cache-Control": "no-store"}
            once.record(connection, Response(_seen(begun, {}), status_code=201, headers=headers))
    except MillraceError:
        discarding.discard_multipart(key, begun.upload_id)
        raise


def _found(upload_id: UUID, owner_id: UUID) -> Begun:
    with autocommit() as connection:
        begun = direct.find(connection, upload_id, owner_id)
    if begun is None:
        raise NotFound(what="upload")
    return begun


def _seen(begun: Begun, arrived: dict[int, rules.Arrived] | None = None) -> DirectUpload:
    if arrived is None:
        try:
            arrived = objects.parts_of(begun.key, begun.upload_id)
        except ObjectMissing:  # completed by a request that died before it was a file: `complete` takes it from there
            arrived = {}
    seconds = max(1, int((begun.expires_at - datetime.now(UTC)).total_seconds()))
    parts = [
        Part(
            number=number,
            size=size,
            url=objects.presign_part(begun.key, begun.upload_id, number, seconds, size, public=True),
            etag=arrived[number].etag if number in arrived else None,
        )
        for number, size in enumerate(rules.sizes(begun.size, begun.part_size), 1)
    ]
    return DirectUpload(
        id=begun.id,
        name=begun.name,
        size=begun.size,
        part_size=begun.part_size,
        expires_at=begun.expires_at,
        parts=parts,
    )


# ---------------------------------------------------------------- complete


async def _complete(upload_id: UUID, completion: Completion, owner_id: UUID, once: Once) -> None:
    if await blocking(_answer_again, upload_id, owner_id, once):
        return
    begun = await blocking(_found, upload_id, owner_id)
    try:
        await blocking(_assemble, begun, completion, owner_id)
    except NotFound:  # another request, or an abort, was quicker
        if await blocking(_answer_again, upload_id, owner_id, once):
            return
        raise
    async with gateway().read_backs:
        stored = await _read_back(begun)
    if stored is None:
        await blocking(_end, begun, owner_id)
        raise DigestMismatch(field="sha256", algorithm="sha-256")
    stored = await blocking(twins.found, owner_id, stored)
    await blocking(_store, begun, stored, owner_id, once)
    await blocking(twins.drop_unless_named, stored)


def _answer_again(file_id: UUID, owner_id: UUID, once: Once) -> bool:
    """Whether the upload is a file already: the answer may have been lost, or another request was quicker."""
    with transaction() as connection:
        file = files.by_id(connection, file_id, owner_id)
        if file is not None:
            once.record(connection, _answer(file))
    return file is not None


def _assemble(begun: Begun, completion: Completion, owner_id: UUID) -> None:
    """Make the object of its parts; nothing happens when that was done by a request that ended before it was a file."""
    try:
        arrived = objects.parts_of(begun.key, begun.upload_id)
    except ObjectMissing:
        arrived = None
    if arrived is not None:
        expected = rules.sizes(begun.size, begun.part_size)
        if reason := rules.discrepancy(expected, arrived, completion.parts):
            raise UploadIncomplete(reason=reason)
    with autocommit() as connection:
        if not direct.hold(connection, begun.id, owner_id, HOLD_SECONDS):
            raise NotFound(what="upload")
    try:
        if arrived is not None:
            etags = [arrived[number].etag for number in sorted(arrived)]
            objects.complete_multipart(begun.key, begun.upload_id, etags)
        size = objects.size_of(begun.key)
    except ObjectMissing:
        size = -1
    if size != begun.size:
        # a part was sent anew between the listing and the end, or the bucket's owner has had a hand in it
        _end(begun, owner_id)
        raise UploadIncomplete(reason="its parts were changed while it was completed; begin a new one")


async def _read_back(begun: Begun) -> StoredObject | None:
    """The object, read once; None when it is not what was announced."""
    wanted = [] if begun.sha256 is None else [_announced(begun.sha256)]
    read = read_part(begun.key, 0, begun.size, partial=False)
    intake = Intake(read, wanted)
    try:
        head = await intake.head()
        while await intake.read(CHUNK_BYTES):
            pass
        await intake.check()
    except DigestMismatch:
        return None
    finally:
        await read.aclose()
    return StoredObject(
        id=begun.id,
        key=begun.key,
        name=begun.name,
        size=intake.size,
        sha256=await intake.sha256(),
        content_type=content_type_of(head, begun.content_type or UNKNOWN_TYPE, begun.name),
        kind=kind_of(head),
        local_headers=await intake.local_headers(),
    )


def _announced(sha256: str) -> Announced:
    return Announced(field="sha256", algorithm="sha-256", value=bytes.fromhex(sha256))


def _store(begun: Begun, stored: StoredObject, owner_id: UUID, once: Once) -> None:
    with transaction() as connection:
        if direct.remove(connection, begun.id, owner_id) is not None:
            once.record(connection, _answer(files.insert(connection, owner_id, stored)))
            return
    if not _answer_again(begun.id, owner_id, once):  # aborted meanwhile
        raise NotFound(what="upload")


def _end(begun: Begun, owner_id: UUID) -> None:
    with autocommit() as connection:
        removed = direct.remove(connection, begun.id, owner_id)
    if removed is not None:
        direct.delete_leftovers(removed)


def _answer(file: File) -> Response[File]:
    return Response(file, status_code=201, headers={"Location": f"/api/v1/download/{file.filename}"})


routes = [begin_upload, read_upload, complete_upload, abort_upload]

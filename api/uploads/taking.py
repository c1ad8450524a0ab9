"""The body of a PATCH, or of a POST that brings the first bytes: kept, and finished with the last byte."""

from contextlib import aclosing
from typing import Any
from uuid import UUID

import structlog
from litestar import Request

from api.objects import blocking, gateway, unbroken
from api.uploads import verifying
from api.uploads.body import Body
from api.uploads.places import place
from api.uploads.resuming import Keeper, beating
from domain.accounts import Principal
from domain.errors import BEGINNING_KEPT, MillraceError
from domain.errors.neighbours import ShuttingDown
from domain.errors.uploads import StorageQuotaExceeded, UploadTooSlow
from storage.configuration import settings
from storage.uploads import finishing, receiving
from storage.uploads.content import Content
from storage.uploads.receiving import Held

log = structlog.get_logger(__name__)


async def receive(
    request: Request[Any, Any, Any],
    upload_id: UUID,
    principal: Principal,
    offset: int,
    length: int | None,
    checksum: tuple[str, bytes] | None,
) -> None:
    """Keep the body, and finish the upload if that was the rest.

    With a ``checksum`` or a digest field (RFC 9530) the body is kept whole and true, or not at all. It takes one of the
    owner's places, and its client has the same patience as that of any other upload.
    """
    body = Body(request, settings().max_upload_bytes, settings().upload_min_bytes_per_second)
    gate = gateway()
    with gate.upload():
        async with place(request, principal.id):
            held, standing = await blocking(receiving.claim, upload_id, principal.id, offset, length, body.length)
            body.limit = receiving.room(standing)
            try:
                keeper = Keeper(gate, held, standing)
                async with beating(held, keeper):
                    await _keep(keeper, body, checksum)
                if keeper.whole:
                    await finish(held, keeper.content())
            finally:
                await unbroken(blocking(receiving.release, held))


async def _keep(keeper: Keeper, body: Body, checksum: tuple[str, bytes] | None) -> None:
    async with aclosing(body.chunks()) as pieces:
        if checksum is not None or body.announced:
            async with aclosing(verifying.verified(gateway(), keeper, body, pieces, checksum)) as verified:
                await keeper.keep(verified)
            return
        try:
            await keeper.keep(pieces)
        except ShuttingDown as error:
            raise ShuttingDown(kept=BEGINNING_KEPT, retry_after=error.retry_after) from error
        except UploadTooSlow as error:
            raise UploadTooSlow(**{**error.details, "kept": BEGINNING_KEPT}) from error


async def finish(held: Held, content: Content | None) -> None:
    try:
        await unbroken(blocking(finishing.finish, held, content))
    except StorageQuotaExceeded:
        raise  # there will be no file, and its client is to know
    except MillraceError as error:  # it has every byte: the sweep makes its file
        log.warning("upload_not_finished", upload_id=str(held.id), error=error.code)
        await blocking(receiving.release, held)

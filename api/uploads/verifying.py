"""Upload-Checksum, and the digest fields of RFC 9530: bytes that are kept only once all of them have come and are what
was said."""

import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator

from api.objects import Gateway, blocking
from api.uploads.body import Body
from api.uploads.intake import Intake
from api.uploads.parts import URL_SECONDS, Promise, Writer
from api.uploads.resuming import Keeper
from domain.errors.neighbours import StorageUnavailable
from domain.errors.uploads import ChecksumMismatch
from domain.files import UNKNOWN_TYPE
from domain.identity import new_id
from storage import discarding, objects

IN_MEMORY = objects.SMALLEST_PART


async def verified(
    gate: Gateway, keeper: Keeper, body: Body, chunks: AsyncIterator[bytes], checksum: tuple[str, bytes] | None
) -> AsyncGenerator[bytes, None]:
    """The body, after it has come whole. Up to a part of it waits in memory, a larger one as an object of its own.

    Parts cannot be sent ahead and thrown away: `rclone serve s3` refuses other bytes for a part it has (measured).

    Raises:
        ChecksumMismatch, DigestMismatch
        StorageQuotaExceeded: it has become clear that there is no room for all of it.
        ClientGone, BodyTooLarge, StorageUnavailable: as reading and writing raise them.
    """
    algorithm, expected = checksum or ("sha256", b"")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    body.digest()

    async def digested() -> AsyncIterator[bytes]:
        async for chunk in chunks:
            keeper.heard()
            if checksum is not None:
                digest.update(chunk)
            yield chunk

    async def check() -> None:
        if checksum is not None and not hmac.compare_digest(digest.digest(), expected):
            raise ChecksumMismatch(algorithm=algorithm)
        await body.check()
        await keeper.reserve(keeper.received + body.received)

    if body.length is not None and body.length <= IN_MEMORY:
        await gate.room.take(body.length)
        try:
            held = [chunk async for chunk in digested()]
        finally:
            gate.room.give(body.length)
        await check()
        for chunk in held:
            yield chunk
        return
    key = objects.input_key(new_id())
    promise = None if body.length is None else Promise(least=body.length, most=body.length)
    await Writer(gate, key, UNKNOWN_TYPE, body.limit).write(Intake(digested()), promise)
    try:
        await check()
        async with gate.http.stream("GET", objects.presign_get(key, URL_SECONDS)) as answer:
            if answer.status_code != 200:
                raise StorageUnavailable(retry_after=1, key=key)
            async for chunk in answer.aiter_raw():
                yield chunk
    finally:
        await blocking(discarding.discard, [key])

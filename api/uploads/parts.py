"""From an intake to one object: a single PUT where the file fits in it, else a multipart upload.

A part must be declared with its exact length before its first byte. Where the request says its length, ``Promise``
says how many bytes of file it surely holds; these are sent as they arrive, and only the small rest whose length is
uncertain is held back. Where the request does not say it, every part is held back until it is full.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import structlog

from api.objects import Gateway, blocking, unbroken
from api.uploads.intake import Intake
from domain.errors.neighbours import ObjectMissing, StorageUnavailable
from domain.errors.requests import MalformedRequest
from storage import discarding, objects
from storage.objects import MIB, PARTS, SMALLEST_PART

PART = 32 * MIB
PADDING = 64 * 1024
IN_FLIGHT = 3  # one part being sent while the store still thinks about two before it
URL_SECONDS = 3600  # a URL is checked when its PUT begins

Allowed = Callable[[int], Awaitable[None]]

log = structlog.get_logger(__name__)


class Promise(NamedTuple):
    """What the length of the request says of the length of its file, in bytes; all are the same for a raw body."""

    least: int
    most: int
    likely: int | None = None  # if it is a form as everybody sends it

    @property
    def exact(self) -> bool:
        return self.least == self.most


def plan(promise: Promise, part: int) -> list[int]:
    """Lengths of the parts that can be declared before their bytes are there.

    No part is below 5 MiB unless it is the last of a file whose length is exact. What may come after them is
    ``promise.most`` less their sum. Empty where nothing that makes a part is certain.
    """
    sizes = []
    left = promise.least
    smallest = 1 if promise.exact else SMALLEST_PART
    while left >= part + smallest:
        sizes.append(part)
        left -= part
    return [*sizes, left] if left >= smallest else sizes


class Writer:
    """Writes one object; after an error nothing of it is left in the store, or only for the sweep of leftovers."""

    def __init__(self, gate: Gateway, key: str, content_type: str, limit: int, allowed: Allowed | None = None) -> None:
        """``limit`` is the largest size in bytes; parts are made so large that 10,000 of them hold it. Of a body that
        does not say its length ``allowed`` is asked, before each part, whether there may be so much."""
        self._gate = gate
        self._key = key
        self._content_type = content_type
        self._allowed = allowed
        self._least_part = -(-limit // PARTS)
        self._upload_id = ""
        self._answers: list[asyncio.Task[str]] = []

    async def write(self, intake: Intake, promise: Promise | None) -> None:
        """
        Raises:
            StorageUnavailable: the store refused or broke off; the bytes are gone, so nothing is tried again.
            MalformedRequest: the file is shorter than promised.
            ClientGone, BodyTooLarge: as the intake raises them.
            StorageQuotaExceeded: as ``allowed`` raises it.
        """
        whole = False
        try:
            if promise is None:
                await self._write_unknown(intake, max(SMALLEST_PART, self._least_part))
            else:
                await self._write_promised(intake, promise)
            whole = True
        finally:
            if not whole:
                await unbroken(self._drop())

    async def _write_promised(self, intake: Intake, promise: Promise) -> None:
        sizes = plan(promise, max(PART, self._least_part))
        if not sizes and promise.likely is not None:
            await self._write_likely(intake, promise.likely, promise.most)
            return
        if not sizes:
            async with self._gate.buffer(promise.most):
                await self._put_object(await _hold(intake, promise.most))
            return
        if promise.exact and len(sizes) == 1:
            taken = asyncio.get_running_loop().create_future()
            await self._put_object(_stream(intake, sizes[0], taken), sizes[0])
            return
        await unbroken(self._begin())
        for size in sizes:
            await self._stream_part(intake, size)
        if rest := await _hold(intake, promise.most - sum(sizes)):
            await self._start_part(_listed(rest), _length(rest))
        await self._complete()

    async def _write_likely(self, intake: Intake, likely: int, most: int) -> None:
        """A small file passed on as it comes, however slowly, with a length that is only very likely.

        Where it turns out to be another, what the store has is filled up, read back and written once more: then
        memory is needed for a moment, and not for as long as the client takes.
        """
        await self._put_object(_padded(intake, likely), likely)
        kept = intake.size
        rest = await _hold(intake, most - likely) if kept == likely else []
        if rest or kept < likely:
            async with self._gate.buffer(most):
                try:
                    before = await blocking(objects.read_range, self._key, 0, kept)
                except ObjectMissing as error:
                    raise StorageUnavailable(retry_after=1) from error
                await self._put_object([before, *rest])

    async def _write_unknown(self, intake: Intake, size: int) -> None:
        ended = False
        while not ended:
            # no allowance for who has yet to send something: a slow client would hold it for nothing
            first = await intake.read(size)
            async with AsyncExitStack() as allowance:
                await allowance.enter_async_context(self._gate.buffer(size))
                held = [first] if first else []
                held += await _hold(intake, size - len(first))
                if self._allowed is not None:
                    await self._allowed(intake.size)
                ended = _length(held) < size
                if ended and not self._upload_id:
                    await self._put_object(held)
                    return
                if held:
                    if not self._upload_id:
                        await unbroken(self._begin())
                    await self._start_part(_listed(held), _length(held), allowance.pop_all())
        await self._complete()

    # ------------------------------------------------------------ parts

    async def _stream_part(self, intake: Intake, size: int) -> None:
        """Returns when the intake may be read again: the last byte is on its way, the store's answer need not be."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        part = await self._start_part(_stream(intake, size, taken), size)
        while not taken.done():
            await self._settle(taken)
            if part.done() and not taken.done():
                raise StorageUnavailable(retry_after=1)  # answered before it had the bytes

    async def _start_part(self, content: AsyncIterable[bytes], size: int, held: AsyncExitStack | None = None) -> Any:
        while sum(not part.done() for part in self._answers) >= IN_FLIGHT:
            await self._settle()
        url = objects.presign_part(self._key, self._upload_id, len(self._answers) + 1, URL_SECONDS)
        part = asyncio.create_task(self._put(url, content, size, held=held))
        self._answers.append(part)
        return part

    async def _settle(self, *others: asyncio.Future[Any]) -> None:
        """Wait until something happens; raise what a part has failed with."""
        running = [part for part in self._answers if not part.done()]
        await asyncio.wait([*running, *others], return_when=asyncio.FIRST_COMPLETED)
        for part in running:
            if part.done():
                part.result()

    async def _put_object(self, content: list[bytes] | AsyncIterable[bytes], size: int | None = None) -> None:
        url = objects.presign_put(self._key, URL_SECONDS, self._content_type)
        headers = {"Content-Type": self._content_type}
        if isinstance(content, list):
            await self._put(url, _listed(content), _length(content), headers)
        else:
            await self._put(url, content, size or 0, headers)

    async def _put(
        self,
        url: str,
        content: AsyncIterable[bytes],
        size: int,
        headers: dict[str, str] | None = None,
        held: AsyncExitStack | None = None,
    ) -> str:
        """The ETag of what was written."""
        async with held or AsyncExitStack():
            return await send(self._gate, self._key, url, content, size, headers or {})

    # ------------------------------------------------------------ begin and end

    async def _begin(self) -> None:
        self._upload_id = await blocking(objects.create_multipart, self._key, self._content_type)

    async def _complete(self) -> None:
        etags = [await part for part in self._answers]
        try:
            await unbroken(blocking(objects.complete_multipart, self._key, self._upload_id, etags))
        except ObjectMissing as error:  # somebody aborted it under our hands
            raise StorageUnavailable(retry_after=1) from error

    async def _drop(self) -> None:
        for part in self._answers:
            part.cancel()
        # a part that ends after the abort would stay in the store for ever (S3 API reference, AbortMultipartUpload)
        await asyncio.gather(*self._answers, return_exceptions=True)
        if self._upload_id:
            await blocking(discarding.discard_multipart, self._key, self._upload_id, [self._key])
        else:
            await blocking(discarding.discard, [self._key])


async def send(
    gate: Gateway, key: str, url: str, content: AsyncIterable[bytes], size: int, headers: Mapping[str, str]
) -> str:
    """PUT ``size`` bytes to a presigned URL; the answer is the ETag of what was written.

    Raises:
        StorageUnavailable: the store cannot be reached, broke off or refused; a refusal has its ``status``.
    """
    try:
        answer = await gate.http.put(url, content=content, headers={"Content-Length": str(size), **headers})
    except httpx.TransportError as error:
        raise StorageUnavailable(retry_after=1) from error
    if answer.status_code != 200:
        log.warning("the store refused a write", key=key, status=answer.status_code, text=answer.text[:300])
        raise StorageUnavailable(retry_after=1, status=answer.status_code)
    return str(answer.headers.get("etag", ""))


# ---------------------------------------------------------------- bytes


async def _stream(intake: Intake, size: int, taken: asyncio.Future[None]) -> AsyncIterator[bytes]:
    while size > 0:
        chunk = await intake.read(size)
        if not chunk:
            raise MalformedRequest(reason="the file is shorter than the request's length promises")
        size -= len(chunk)
        if not size:
            taken.set_result(None)
        yield chunk


async def _padded(intake: Intake, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        chunk = await intake.read(size) or bytes(min(size, PADDING))
        size -= len(chunk)
        yield chunk


async def _hold(intake: Intake, most: int) -> list[bytes]:
    held = []
    while most > 0 and (chunk := await intake.read(most)):
        held.append(chunk)
        most -= len(chunk)
    return held


async def _listed(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _length(chunks: list[bytes]) -> int:
    return sum(map(len, chunks))

"""Bytes between HTTP and the object storage, without blocking the event loop and without piling up in memory.

boto3 blocks, so it only signs URLs here (that is arithmetic) and does the short calls of a multipart upload in a
thread; the bytes themselves go through one httpx client per process, as they arrive.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
import httpx
from litestar import Litestar

from api.room import Room
from domain.errors.neighbours import StorageUnavailable
from storage import objects
from storage.configuration import settings

# httpx logs every URL at INFO, and a presigned URL is a key to the object
logging.getLogger("httpx").setLevel(logging.WARNING)

P = ParamSpec("P")
T = TypeVar("T")

# What all uploads of this process together may hold back in memory. Only bodies of unknown length and small forms
# are held back at all; the rest is passed on as it arrives.
BUFFER_BYTES = 24 * 1024**2
UNIT = 256 * 1024
# With four parts of 5 MiB in memory, sixty-four clients of 1 MiB/s each wait this long for their turns.
BUFFER_WAIT_SECONDS = 120.0
READ_BACKS = 2  # uploads straight to the store that one process reads back to verify; each fills a core
CLEAN_UP_SECONDS = 5.0  # an abort is one call

WRITE_SECONDS = 20.0  # for which the store may take no byte


class Gateway:
    """What one event loop needs to talk to the store: the client and the allowance of memory."""

    def __init__(self) -> None:
        # No limit on connections: each serves one client's request, and those are limited in front of us.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        answer = settings().s3_answer_seconds  # it may well think for a while after the last byte of a part
        timeouts = httpx.Timeout(connect=5, write=min(WRITE_SECONDS, answer), read=answer, pool=5)
        self.http = httpx.AsyncClient(timeout=timeouts, limits=limits, follow_redirects=False)
        self.room = Room()
        self._units = asyncio.Semaphore(BUFFER_BYTES // UNIT)
        self._turn = asyncio.Lock()
        self.uploads = 0
        self.read_backs = asyncio.Semaphore(READ_BACKS)

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Around everything an upload does, so that ``close`` can wait until the last one has cleaned up."""
        self.uploads += 1
        try:
            yield
        finally:
            self.uploads -= 1

    async def close(self) -> None:
        """End the connections, after the uploads that the server has just cancelled have left nothing behind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                while self.uploads:  # noqa: ASYNC110  # at the end of a process, where nobody waits for the last ms
                    await asyncio.sleep(0.02)
        await self.http.aclose()

    @asynccontextmanager
    async def buffer(self, size: int) -> AsyncIterator[None]:
        """Hold an allowance of ``size`` bytes of memory for the block, waiting for others to give theirs back.

        Raises:
            StorageUnavailable: none came free within two minutes.
        """
        units = min(-(-size // UNIT), BUFFER_BYTES // UNIT)
        taken = 0
        try:
            try:
                # one at a time, or two that each hold half of what they need would wait for each other for ever
                async with asyncio.timeout(BUFFER_WAIT_SECONDS), self._turn:
                    while taken < units:
                        await self._units.acquire()
                        taken += 1
            except TimeoutError:
                raise StorageUnavailable(retry_after=5) from None
            yield
        finally:
            for _ in range(taken):
                self._units.release()


_gateways: dict[asyncio.AbstractEventLoop, Gateway] = {}


def gateway() -> Gateway:
    """The gateway of the running event loop, built at first use."""
    loop = asyncio.get_running_loop()
    if loop not in _gateways:
        _gateways[loop] = Gateway()
    return _gateways[loop]


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncIterator[None]:
    """For the app: load boto3 beside the start, close the connections at the end."""
    # half a second of imports that the first upload need not wait for, nor the start
    warming = asyncio.create_task(blocking(objects.client))
    try:
        yield
    finally:
        warming.cancel()
        if gate := _gateways.pop(asyncio.get_running_loop(), None):
            await gate.close()


async def blocking(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The answer of a blocking call, made in a thread."""
    return await anyio.to_thread.run_sync(partial(call, *args, **kwargs))


_unbroken: set[asyncio.Task[Any]] = set()


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` to its end even when the caller is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.create_task(work)
    _unbroken.add(task)  # the loop itself keeps only weak references
    task.add_done_callback(_unbroken.discard)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: S110  # it is raised by result() below
            pass
    if cancelled is not None:
        task.exception()  # looked at, so that it is not reported as never retrieved
        raise cancelled
    return task.result()

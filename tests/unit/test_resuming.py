"""Parts of a resumable upload: one goes to the store while the next fills, and what fails there ends the reading."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from api.room import Room
from api.uploads.progress import Batch, Progress
from api.uploads.resuming import Keeper
from domain.errors.neighbours import StorageUnavailable
from storage.uploads import receiving
from storage.uploads.receiving import Held, Standing

PART = 1000
Put = Callable[[Batch], Awaitable[None]]


def keeper(room: Room, length: int = 3 * PART) -> Keeper:
    standing = Standing(
        id=uuid4(), owner_id=uuid4(), state="receiving", length=length, received=0, part_size=PART,
        object_key="inputs/none", multipart_id="none", tail_key=None, tail_size=0, parts=0, partial=False, sources=None,
        metadata="", created_at=datetime.now(UTC), expires_at=datetime.now(UTC), expired=False, claimed=True,
        asked=False,
    )  # fmt: skip
    return Keeper(cast(Any, SimpleNamespace(room=room)), Held(id=standing.id, claim=uuid4()), standing)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was sent; the database agrees to everything."""
    sent: list[int] = []

    async def send(_: Progress, batch: Batch, url: str, headers: dict[str, str]) -> str:
        sent.append(batch.size)
        return "etag"

    monkeypatch.setattr(Progress, "_send", send)
    monkeypatch.setattr("api.uploads.progress.objects.presign_part", lambda *_: "")
    monkeypatch.setattr("api.uploads.progress.objects.presign_put", lambda *_: "")
    monkeypatch.setattr(receiving, "keep", lambda *_, **__: None)
    return sent


def before_sending(monkeypatch: pytest.MonkeyPatch, put: Put) -> None:
    send = Progress._send

    async def slowly(self: Progress, batch: Batch, url: str, headers: dict[str, str]) -> str:
        await put(batch)
        return await send(self, batch, url, headers)

    monkeypatch.setattr(Progress, "_send", slowly)


def test_the_next_part_fills_while_one_is_sent(store: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.uploads.resuming.SPARE_BYTES", PART)

    async def run() -> None:
        second = asyncio.Event()

        async def once_the_second_fills(_: Batch) -> None:
            async with asyncio.timeout(5):
                await second.wait()

        before_sending(monkeypatch, once_the_second_fills)

        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(PART)
            yield bytes(PART // 2)
            second.set()
            yield bytes(PART + PART // 2)

        room = Room(10 * PART)
        one = keeper(room)
        await one.keep(pieces())
        assert (store, one.whole) == ([PART] * 3, True)
        assert room.try_take(10 * PART), "all room is given back"

    asyncio.run(run())


def test_no_second_part_is_held_where_there_is_little_room(store: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.uploads.resuming.SPARE_BYTES", PART)

    async def run() -> None:
        room, held = Room(2 * PART), []

        async def look(_: Batch) -> None:
            await asyncio.sleep(0.01)
            held.append(2 * PART - room._free)

        before_sending(monkeypatch, look)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield bytes(PART // 10)

        one = keeper(room)
        await one.keep(pieces())
        assert store == [PART] * 3, "and no tail was written to make room"
        assert max(held) == PART

    asyncio.run(run())


def test_a_part_that_fails_ends_the_wait_for_the_client(store: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.uploads.resuming.SPARE_BYTES", PART)

    async def run() -> None:
        async def fail(_: Batch) -> None:
            await asyncio.sleep(0.01)
            raise StorageUnavailable(retry_after=1)

        before_sending(monkeypatch, fail)

        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(PART + 1)
            await asyncio.Event().wait()  # a client that says no more

        room = Room(10 * PART)
        with pytest.raises(StorageUnavailable):
            async with asyncio.timeout(5):
                await keeper(room).keep(pieces())
        assert store == []
        assert room.try_take(10 * PART), "all room is given back"

    asyncio.run(run())


def test_a_client_that_goes_amid_a_part_leaves_the_part_before_it_and_a_tail(
    store: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(PART + 1)
            raise ConnectionError

        room = Room(10 * PART)
        one = keeper(room)
        with pytest.raises(ConnectionError):
            await one.keep(pieces())
        assert (store, one.received) == ([PART, 1], PART + 1)
        assert room.try_take(10 * PART), "all room is given back"

    asyncio.run(run())

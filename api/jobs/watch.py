"""What pub/sub has lost: Redis promises no delivery, so the table is asked about everything that is listened to.

And who listens is looked up again: a new password ends what was opened with the old one. Two statements a second for
the whole process, and one more every five, however many streams it has.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from litestar import Litestar

from api.jobs.hub import Ended, Hub, Reread
from api.objects import blocking
from domain.errors.neighbours import DatabaseUnavailable
from storage import accounts, events, feeds
from storage.database import autocommit

SECONDS = 0.8  # a lost message is made up for after two looks at most
READERS_EVERY = 6  # looks: as long as an account that was changed may pass for what it was elsewhere
_log = structlog.get_logger()


class Watch:
    """Compares what the hub has heard with what is stored."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._stored: dict[str, int] = {}  # at the last look, by channel
        self._absent: set[str] = set()  # those without a job at the last look
        self._position: str | None = None
        self._looks = 0

    async def look(self) -> None:
        """Tell the streams that have missed something, and end those whose reader is not who they were.

        Raises DatabaseUnavailable.
        """
        if jobs := self._hub.channels(events.JOB_CHANNEL):
            await self._look_at_jobs(jobs)
        if owners := self._hub.channels(events.OWNER_CHANNEL):
            await self._look_at_owners(owners)
        else:
            self._position = None
        self._looks += 1
        if self._looks % READERS_EVERY == 0 and (readers := self._hub.readers()):
            known = await blocking(accounts.principals, {reader.id for reader in readers})
            for reader in readers:
                if reader not in known:
                    self._hub.dismiss(reader)

    async def _look_at_jobs(self, channels: list[str]) -> None:
        ids = {channel: UUID(channel.removeprefix(events.JOB_CHANNEL)) for channel in channels}
        standings = await blocking(_standings, list(ids.values()))
        stored = {channel: standings[job_id] for channel, job_id in ids.items() if job_id in standings}
        for channel in channels:
            if channel not in stored:
                # deleted; what is told of it last may still be on its way. Who comes back is told that it is gone
                if channel in self._absent:
                    self._hub.tell(channel, Ended())
            elif self._stored.get(channel, 0) > self._hub.heard.get(channel, 0):
                # stored before the last look, and not heard by now
                self._hub.heard[channel] = self._stored[channel]
                self._hub.tell(channel, Reread())
        self._stored = stored
        self._absent = {channel for channel in channels if channel not in stored}

    async def _look_at_owners(self, channels: list[str]) -> None:
        ids = [UUID(channel.removeprefix(events.OWNER_CHANNEL)) for channel in channels]
        if self._position is None:
            self._position = await blocking(_now)
            owners = set(ids)  # what was lost before the first look
        else:
            owners, self._position = await blocking(_owners_with_news, ids, self._position)
        for owner_id in owners:
            self._hub.tell(events.owner_channel(owner_id), Reread())


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Watch the hub of this process; to be entered after the hub's own."""
    watching = asyncio.create_task(_watch(Watch(app.state.hub)), name="event-watch")
    try:
        yield
    finally:
        watching.cancel()


async def _watch(watch: Watch) -> None:
    while True:
        await asyncio.sleep(SECONDS)
        try:
            await watch.look()
        except DatabaseUnavailable:
            continue  # nobody can read anything either
        except Exception:
            _log.exception("event_watch_failed")


def _standings(ids: list[UUID]) -> dict[UUID, int]:
    with autocommit() as connection:
        return events.standings(connection, ids)


def _now() -> str:
    with autocommit() as connection:
        return feeds.now(connection)


def _owners_with_news(ids: list[UUID], seen: str) -> tuple[set[UUID], str]:
    with autocommit() as connection:
        return feeds.owners_with_news(connection, ids, seen)

"""What a listener is sent, whatever the wire: subscribe first, replay the record, go live, and drop what was sent.

So nothing is missed and nothing comes twice. The hub says when something came by or was lost; the table has it all.
"""

from collections.abc import AsyncGenerator
from uuid import UUID

import msgspec

from api.jobs.hub import Ended, Hub, Reread
from api.objects import blocking
from domain.jobs import TERMINAL, Event
from storage import events, feeds
from storage.database import autocommit

PING_SECONDS = 15.0
_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode

Frame = tuple[str | None, Event | None, bytes]  # id, event and its JSON; without event a sign of life


async def of_job(hub: Hub, job_id: UUID, seen: int) -> AsyncGenerator[Frame]:
    """The events of a job that follow number ``seen``, to the terminal one."""
    async with hub.listen(events.channel(job_id)) as subscription:
        end: tuple[Event, bytes] | None = None
        while True:
            while stored := await blocking(_replay, job_id, seen):
                for event in stored:
                    yield str(event.seq), event, _encode(event)
                    seen = event.seq or seen
                    if event.type in TERMINAL:
                        return
            if end is not None:  # the table has neither it nor the one before it any more: the job was deleted
                yield str(end[0].seq), *end
                return
            while True:
                message = await subscription.next(PING_SECONDS)
                if message is None:
                    yield None, None, b""
                    continue
                if isinstance(message, Reread):
                    break
                if isinstance(message, Ended):
                    return
                event = _decode(message)
                if event.seq is None:
                    yield None, event, message
                elif event.seq == seen + 1:
                    yield str(event.seq), event, message
                    seen = event.seq
                    if event.type in TERMINAL:
                        return
                elif event.seq > seen:
                    end = (event, message) if event.type in TERMINAL else None
                    break  # one before it is missing


async def of_owner(hub: Hub, owner_id: UUID, position: str | None) -> AsyncGenerator[Frame]:
    """The events of all jobs of an owner after ``position`` (None: from now on), without end."""
    async with hub.listen(events.owner_channel(owner_id)) as subscription:
        here = position if position is not None else await blocking(_now)
        if position is None:
            yield here, None, b""  # whoever loses the connection before the first event resumes here
        while True:
            more = True
            while more:
                fresh, here, more = await blocking(_news, owner_id, here)
                for place, event in fresh:
                    yield place, event, _encode(event)
            while True:
                message = await subscription.next(PING_SECONDS)
                if message is None:
                    # a position of long ago names many transactions that are over
                    yield here, None, b""
                    break
                if isinstance(message, Reread):
                    break
                if isinstance(message, Ended):
                    return
                yield None, _decode(message), message  # what the table does not have


def _replay(job_id: UUID, after: int) -> list[Event]:
    with autocommit() as connection:
        return events.replay(connection, job_id, after)


def _now() -> str:
    with autocommit() as connection:
        return feeds.now(connection)


def _news(owner_id: UUID, position: str) -> feeds.Batch:
    with autocommit() as connection:
        return feeds.news(connection, owner_id, position)

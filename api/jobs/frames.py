"""What a listener is sent, whatever the wire: subscribe first, replay the record, go live, and drop what was sent.

So nothing is missed and nothing comes twice. The hub says when something came by or was lost; the table has it all.
"""

from collections.abc import AsyncGenerator
from typing import NamedTuple
from uuid import UUID

import msgspec

from api.jobs.hub import Ended, Hub, Quiet, Reread, Told, framed
from api.objects import blocking
from api.server import Wire
from domain.accounts import Principal
from domain.jobs import TERMINAL, Event, EventType
from storage import events, feeds
from storage.database import autocommit

_encode = msgspec.json.Encoder().encode


class Frame(NamedTuple):
    """``place`` is the id; without ``type`` it is a sign of life. ``sse`` is there where it was made for all."""

    place: str | None
    type: EventType | None
    data: bytes
    sse: bytes | None = None

    def framed(self) -> bytes:
        return self.sse or framed(self.place, self.type, self.data)


ALIVE = Frame(None, None, b"")
BEGUN = Frame(None, None, b"", b"retry: 1000\n\n")  # it is listened; an EventSource comes back after a second


async def of_job(
    hub: Hub, reader: Principal, job_id: UUID, seen: int, wire: Wire | None = None
) -> AsyncGenerator[Frame]:
    """The events of a job that follow number ``seen``, to the terminal one; without those that the hub, while this
    waits, writes to ``wire`` itself."""
    with hub.listen(events.channel(job_id), reader, seen, wire) as heard:
        yield BEGUN
        end: Told | None = None
        while True:
            while stored := await blocking(_replay, job_id, heard.seen):
                for event in stored:
                    yield Frame(str(event.seq), event.type, _encode(event))
                    heard.seen = event.seq or heard.seen
                    if event.type in TERMINAL:
                        return
                del event
            if end is not None:  # the table has neither it nor the one before it any more: the job was deleted
                yield Frame(str(end.seq), end.type, end.data, end.sse)
                return
            while True:
                message = await heard.next()
                if isinstance(message, Quiet):
                    yield ALIVE
                elif isinstance(message, Reread):
                    break
                elif isinstance(message, Ended):
                    return
                elif message.seq is None:
                    yield Frame(None, message.type, message.data, message.sse)
                elif message.seq == heard.seen + 1:
                    yield Frame(str(message.seq), message.type, message.data, message.sse)
                    heard.seen = message.seq
                    if message.type in TERMINAL:
                        return
                elif message.seq > heard.seen:
                    end = message if message.type in TERMINAL else None
                    break  # one before it is missing


async def of_owner(
    hub: Hub, reader: Principal, position: str | None, wire: Wire | None = None
) -> AsyncGenerator[Frame]:
    """The events of all jobs of the reader after ``position`` (None: from now on), without end; ``wire`` as above."""
    with hub.listen(events.owner_channel(reader.id), reader, wire=wire) as heard:
        yield BEGUN
        here = position if position is not None else await blocking(_now)
        if position is None:
            yield Frame(here, None, b"")  # whoever loses the connection before the first event resumes here
        while True:
            more = True
            while more:
                fresh, here, more = await blocking(_news, reader.id, here)
                for place, event in fresh:
                    yield Frame(place, event.type, _encode(event))
            while True:
                message = await heard.next()
                if isinstance(message, Quiet):
                    # a position of long ago names many transactions that are over
                    yield Frame(here, None, b"")
                    break
                if isinstance(message, Reread):
                    break
                if isinstance(message, Ended):
                    return
                # what the table does not have: live percentages, and the end of a job that was deleted, whose number is
                # no position here
                yield Frame(None, message.type, message.data, message.sse if message.seq is None else None)


def _replay(job_id: UUID, after: int) -> list[Event]:
    with autocommit() as connection:
        return events.replay(connection, job_id, after)


def _now() -> str:
    with autocommit() as connection:
        return feeds.now(connection)


def _news(owner_id: UUID, position: str) -> feeds.Batch:
    with autocommit() as connection:
        return feeds.news(connection, owner_id, position)

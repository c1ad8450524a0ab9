"""One Redis connection per API process, fanned out to the streams that listen.

Not Litestar's ChannelsPlugin: it keeps every name for ever and ends all streams with its first dropped connection. Here
a lost connection is re-made, and every stream is told to read the table again.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec
import redis.asyncio
import structlog
from litestar import Litestar
from redis.asyncio.client import PubSub

from api.server import Wire, chunk_of
from domain.accounts import Principal
from domain.errors.accounts import TooManyStreams
from domain.jobs import TERMINAL, EventType
from storage import events
from storage.configuration import settings

QUEUE = 256  # messages a slow reader may be behind before it is cut off; it resumes with its Last-Event-ID
PING_SECONDS = 15.0
_log = structlog.get_logger()


class Reread:
    """Messages may have been missed: read the table."""


class Ended:
    """The stream is to end now; the client reconnects and resumes."""


class Quiet:
    """It is time for a sign of life."""


class Told:
    """A published event, read once for all who listen: its number and type, its JSON, and both as they go out."""

    __slots__ = ("chunk", "data", "seq", "sse", "type")

    def __init__(self, data: bytes) -> None:
        """Raises msgspec.DecodeError."""
        head = _head(data)
        self.seq, self.type, self.data = head.seq, head.type, data
        self.sse = framed(None if head.seq is None else str(head.seq), head.type, data)
        self.chunk = chunk_of(self.sse)


Message = Told | Reread | Ended | Quiet


class _Head(msgspec.Struct):
    type: EventType
    seq: int | None = None


_head = msgspec.json.Decoder(_Head).decode


def framed(place: str | None, kind: EventType | None, data: bytes) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2.5); without ``kind`` a comment."""
    number = b"id: %s\n" % place.encode() if place is not None else b""
    if kind is None:
        return number + b": ping\n\n"
    return b"%sevent: %s\ndata: %s\n\n" % (number, kind.encode(), data)


class Subscription:
    """What one stream hears.

    As long as it waits in ``next`` and its connection takes what comes, ordinary events are written past it, straight
    to the wire. Whatever needs a decision (the end, a gap, a full connection) is queued for it instead.
    """

    __slots__ = ("_messages", "_waiter", "_wire", "seen")

    def __init__(self, seen: int = 0, wire: Wire | None = None) -> None:
        """``seen`` is the number of the event that was sent last; it moves on with what is written to ``wire``."""
        self.seen = seen
        self._wire = wire
        self._messages: list[Message] = []  # a deque takes 600 bytes when it is empty, as it nearly always is
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> Message:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._messages.pop(0)

    def end(self) -> None:
        self.put(Ended())

    def put(self, message: Message) -> None:
        messages = self._messages
        if type(message) is Told:
            if (
                self._waiter is not None
                and self._wire is not None
                and not messages
                and self._write(self._wire, message)
            ):
                return
        elif messages and type(message) is type(messages[-1]):
            return  # who has yet to look will see everything
        if len(messages) >= QUEUE:
            messages.clear()
            message = Ended()
            if self._wire is not None:
                self._wire.cut()  # the stream itself is stuck in sending, and would not notice
        messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _write(self, wire: Wire, told: Told) -> bool:
        if told.seq is not None and (told.seq != self.seen + 1 or told.type in TERMINAL):
            return False
        if not wire.write(told.chunk):
            return False
        self.seen = told.seq or self.seen
        return True


class Listening(Subscription):
    """A subscription of the hub for a block. A class, and not a generator: there are thousands of them."""

    __slots__ = ("_channel", "_hub", "_reader")

    def __init__(self, hub: "Hub", channel: str, reader: Principal, seen: int, wire: Wire | None) -> None:
        super().__init__(seen, wire)
        self._hub, self._channel, self._reader = hub, channel, reader

    def __enter__(self) -> Self:
        self._hub.add(self._channel, self._reader, self)
        if self._wire is not None:
            self._wire.gone = self.end
            if not self._wire.is_open:
                self.end()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._wire is not None:
            self._wire.gone = None
        self._hub.remove(self._channel, self._reader, self)


class Hub:
    """Subscribes to a channel while at least one stream listens to it."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            redis_url, socket_connect_timeout=2, socket_keepalive=True, health_check_interval=15
        )
        self._listeners: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._readers: defaultdict[Principal, set[Subscription]] = defaultdict(set)
        self._open: Counter[UUID] = Counter()  # streams of this process, by the account that reads them
        self._pubsub: PubSub | None = None
        self._changed = asyncio.Event()  # somebody began to listen, or the last one ceased to
        self._task: asyncio.Task[None] | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._closing = False
        self.heard: dict[str, int] = {}  # the newest number that came by on the channel of a job somebody listens to

    def check_room(self, account_id: UUID) -> None:
        """Raises TooManyStreams when the account has as many open as it may have."""
        limit = settings().owner_streams
        if self._open[account_id] >= limit:
            raise TooManyStreams(limit=limit, retry_after=5)

    def listen(self, channel: str, reader: Principal, seen: int = 0, wire: Wire | None = None) -> Listening:
        """Hear what is published on ``channel`` within a block; when Redis is away, from when it is back. ``seen`` and
        ``wire`` are the subscription's."""
        return Listening(self, channel, reader, seen, wire)

    def add(self, channel: str, reader: Principal, subscription: Subscription) -> None:
        self._listeners[channel].add(subscription)
        self._readers[reader].add(subscription)
        self._open[reader.id] += 1
        self._changed.set()
        if self._closing:
            subscription.end()

    def remove(self, channel: str, reader: Principal, subscription: Subscription) -> None:
        self._open[reader.id] -= 1
        if not self._open[reader.id]:
            del self._open[reader.id]
        self._readers[reader].discard(subscription)
        if not self._readers[reader]:
            del self._readers[reader]
        listeners = self._listeners[channel]
        listeners.discard(subscription)
        if not listeners:
            del self._listeners[channel]
            self.heard.pop(channel, None)
            self._changed.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._supervise(), name="event-hub")
        self._pinging = asyncio.create_task(self._ping(), name="event-pings")

    async def stop(self) -> None:
        self.end_streams()
        for task in (self._task, self._pinging):
            if task:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self._redis.aclose()

    def end_streams(self) -> None:
        """Let every stream end, so that the server need not wait for them at its shutdown."""
        self._closing = True
        self._everyone(Ended())

    def channels(self, prefix: str) -> list[str]:
        """Those with ``prefix`` that somebody listens to."""
        return [channel for channel in self._listeners if channel.startswith(prefix)]

    def readers(self) -> list[Principal]:
        """Those who have streams open, as they were when they opened them."""
        return list(self._readers)

    def dismiss(self, reader: Principal) -> None:
        """End all streams of one who has lost the right to them."""
        for subscription in self._readers.get(reader, ()):
            subscription.end()

    def tell(self, channel: str, message: Message) -> None:
        """Put ``message`` to all who listen to ``channel``."""
        for subscription in self._listeners.get(channel, ()):
            subscription.put(message)

    def _everyone(self, message: Message) -> None:
        for listeners in self._listeners.values():
            for subscription in listeners:
                subscription.put(message)

    async def _ping(self) -> None:
        """A sign of life for everyone each PING_SECONDS. One timer for all of them, and not all of them at once."""
        slices, turn = 15, 0
        while True:
            await asyncio.sleep(PING_SECONDS / slices)
            everyone = [one for listeners in self._listeners.values() for one in listeners]
            for subscription in everyone:
                if id(subscription) // 64 % slices == turn:
                    subscription.put(Quiet())
            turn = (turn + 1) % slices

    async def _supervise(self) -> None:
        delay = 0.1
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    # a channel of our own: without any, redis-py has no connection to read from
                    await pubsub.subscribe("millrace:hub")
                    self._pubsub = pubsub
                    delay = 0.1
                    tasks = [asyncio.create_task(work(pubsub)) for work in (self._keep_subscribed, self._read)]
                    try:
                        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                        for task in ended:
                            task.result()  # they end only by failing
                    finally:
                        await self._end(tasks)
            except (redis.RedisError, OSError) as error:
                _log.warning("event_hub_disconnected", error=str(error), retry_in=delay)
            except Exception:
                _log.exception("event_hub_failed", retry_in=delay)  # streams must not fall silent for good
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _keep_subscribed(self, pubsub: PubSub) -> None:
        """Subscribe to what is listened to, and to nothing else.

        One task for all, and not each stream for itself: commands of two streams could overtake each other, and one
        that is cancelled in the middle of sending takes the connection with it.
        """
        told: set[str] = set()
        self._changed.set()
        while self._pubsub is pubsub:
            await self._changed.wait()
            self._changed.clear()
            wanted = set(self._listeners)
            if begun := wanted - told:
                await pubsub.subscribe(*begun)
            if ended := told - wanted:
                await pubsub.unsubscribe(*ended)
            told = wanted

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        # redis-py may swallow a cancellation in the middle of sending: the loops must see by themselves that it is over
        self._pubsub = None
        self._changed.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, pubsub: PubSub) -> None:
        while self._pubsub is pubsub:
            message: dict[str, Any] | None = await pubsub.get_message(timeout=10)
            if message is None:
                continue
            channel: str = message["channel"].decode()
            if message["type"] == "message":
                heard = self._message(channel, message["data"])
            elif message["type"] == "subscribe":
                # Sending SUBSCRIBE does not wait for it to count, and redis-py may reconnect without a word: only
                # what is published after this confirmation is sure to come.
                heard = Reread()
            else:
                continue
            self.tell(channel, heard)

    def _message(self, channel: str, data: bytes) -> Message:
        if data == events.NEWS:
            return Reread()
        told = Told(data)
        if told.seq and channel in self._listeners:
            self.heard[channel] = max(told.seq, self.heard.get(channel, 0))
        return told


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """The hub of this process, as ``app.state.hub``."""
    app.state.hub = hub = Hub(settings().redis_url)
    hub.start()
    app.state.stopping.tell(hub.end_streams)
    try:
        yield
    finally:
        await hub.stop()

"""Event streams, over as many connections as it takes: every event once and in order (WHATWG HTML, 9.2)."""

import time
from collections.abc import Iterator
from uuid import UUID

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent

from domain.jobs import TERMINAL, Event
from millrace.errors import RateLimited, Unavailable, Unreachable
from millrace.wire import SILENCE, Wire, backoff


class _Seq(msgspec.Struct):
    seq: int | None = None


class _Place:
    """Where the reader of a stream stands: what goes out as ``Last-Event-ID``."""

    def __init__(self, last: str | None) -> None:
        self.last = last


def follow(wire: Wire, job_id: UUID, after: int, timeout: float | None, outage: float) -> Iterator[Event]:
    """The events after number ``after`` to the terminal one; `progress` events have no number and are live only.

    Cut off, it comes back with ``Last-Event-ID``, again and again for ``outage`` seconds without a server.

    Raises:
        TimeoutError: it has not ended after ``timeout`` seconds.
        Unreachable: there was no server for too long.
        Refused: the job or the token is not good (any more).
    """
    place = _Place(str(after) if after else None)
    for sse in _told(wire, f"/jobs/{job_id}/events", place, timeout, outage, "the job has not ended within"):
        event = _event(sse)
        if event.seq is not None:
            if event.seq <= after:
                continue
            after = event.seq
            place.last = str(after)
        if isinstance(event, Event):
            yield event
            if event.type in TERMINAL:
                return


def follow_all(wire: Wire, after: str | None, timeout: float | None, outage: float) -> Iterator[Event]:
    """The events of all jobs, after a position in the owner's stream or from now on, without end. Raises as above."""
    place = _Place(after)
    for sse in _told(wire, "/events", place, timeout, outage, "the jobs were followed for"):
        event = _event(sse)
        place.last = sse.id or place.last
        if isinstance(event, Event):
            yield event


def _told(
    wire: Wire, path: str, place: _Place, timeout: float | None, outage: float, overdue: str
) -> Iterator[ServerSentEvent]:
    """What the stream says, whatever becomes of its connection; the reader keeps ``place``."""
    began = heard = time.monotonic()
    patience = wire.patience  # for the first connection; whoever has seen it work waits longer
    delays = backoff()
    while True:
        silence = SILENCE if timeout is None else min(SILENCE, _left(began, timeout, overdue))
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": place.last} if place.last else {})
        wait: float | None = None
        lost: Exception | None = None
        open_before = False
        try:
            with wire.stream(path, headers, silence) as response:
                if response.status_code == httpx.codes.NO_CONTENT:
                    return  # the end of the job has been read before
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise Unreachable(f"what answers at {wire.url} is not Millrace: there is no stream of events")
                open_before, patience = True, outage
                for sse in EventSource(response).iter_sse():
                    if timeout is not None:
                        _left(began, timeout, overdue)
                    before = place.last
                    if sse.data:
                        yield sse
                    elif sse.id:  # a position without an event; other fields only set the time to reconnect in
                        place.last = sse.id
                    if place.last != before:
                        delays = backoff()
        except httpx.TransportError as error:
            lost = error
        except (Unavailable, RateLimited) as error:
            lost, wait = error, error.retry_after
        if open_before:  # however long ago the last event was: signs of life come in between
            heard = time.monotonic()
        elif time.monotonic() - heard > patience:
            if lost is None or isinstance(lost, httpx.TransportError):
                raise Unreachable(f"{wire.url} cannot be reached: {lost}") from lost
            raise lost
        wait = next(delays) if wait is None else wait
        time.sleep(wait if timeout is None else min(wait, _left(began, timeout, overdue)))


def _event(sse: ServerSentEvent) -> Event | _Seq:
    """Of an event this version has no word for, only its number."""
    try:
        return msgspec.json.decode(sse.data, type=Event)
    except msgspec.ValidationError:
        return msgspec.json.decode(sse.data, type=_Seq)


def _left(began: float, timeout: float, overdue: str) -> float:
    left = began + timeout - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"{overdue} {timeout:g} s")
    return left

"""What the exchange has delivered becomes calls: the task `recordings.apply`, and a tick for what that has missed."""

import time
from collections.abc import Sequence
from uuid import UUID

import structlog

from domain.errors import MillraceError
from domain.recordings.mango import read
from storage.database import autocommit, transaction
from storage.recordings import calls, mango
from storage.recordings.mango import Delivery
from workers.recordings.matching import match_around

RUN_SECONDS = 5.0  # after which the next slot goes on with what is left
MESSAGE_SECONDS = 5.0  # in which a message does its work, mostly; before that the tick leaves a delivery to it

_log = structlog.get_logger()


def apply(delivery_id: str) -> None:
    """Apply one delivery. A message that comes twice, or late, finds nothing to do."""
    with autocommit() as connection:
        delivery = mango.one(connection, int(delivery_id))
    if delivery is not None:
        apply_all([delivery])


def apply_waiting(age: float = MESSAGE_SECONDS) -> None:
    """Apply what has waited for longer than ``age`` seconds. Two at once do the same work, to the same end."""
    deadline = time.monotonic() + RUN_SECONDS
    after = 0
    while time.monotonic() < deadline:
        with autocommit() as connection:
            deliveries = mango.waiting(connection, after=after, age=age)
        if not deliveries:
            return
        _log.info("deliveries_found_waiting", number=len(deliveries))
        apply_all(deliveries)
        after = deliveries[-1].id


def apply_all(deliveries: Sequence[Delivery]) -> None:
    """Each call in a transaction of its own. What cannot be read is recorded as such and keeps up nothing else.

    Raises:
        DatabaseUnavailable: what is left waits for the tick.
    """
    by_entry: dict[str, list[int]] = {}
    for one in deliveries:
        try:
            message = read(one.kind, one.raw)
        except ValueError as error:
            _fail([one.id], str(error))
            continue
        if message is None:
            with autocommit() as connection:
                mango.applied(connection, [one.id], None)
        else:
            by_entry.setdefault(message.entry_id, []).append(one.id)
    changed = [call_id for entry_id, ids in by_entry.items() if (call_id := _apply_entry(entry_id, ids))]
    match_around(changed)


def _apply_entry(entry_id: str, ids: Sequence[int]) -> UUID | None:
    try:
        with transaction() as connection:
            return calls.apply(connection, entry_id, ids)
    except MillraceError:
        raise
    except Exception as error:  # whatever it is, the next call must not wait for it
        if len(ids) > 1:
            return next(filter(None, [_apply_entry(entry_id, [one]) for one in ids]), None)
        _log.exception("call_not_applied", entry_id=entry_id)
        _fail(ids, f"{type(error).__name__}: {error}")
    return None


def _fail(ids: Sequence[int], error: str) -> None:
    _log.warning("delivery_not_applied", deliveries=list(ids), error=error)
    with autocommit() as connection:
        mango.failed(connection, ids, error)

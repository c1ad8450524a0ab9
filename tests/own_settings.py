"""Pointing this very process at the servers of a stack: for tests that call storage and workers directly."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from storage import configuration, database, dispatch, events, objects


@contextmanager
def settings_of(env: Mapping[str, str]) -> Iterator[None]:
    """Within the block the settings are those of ``env``; at its end every connection is closed."""
    before = dict(os.environ)
    os.environ.update(env)
    forget()
    try:
        yield
    finally:
        forget()
        os.environ.clear()
        os.environ.update(before)


def forget() -> None:
    """Close what this process holds open and let everything read the settings anew."""
    objects.close()
    if database.engine.cache_info().currsize:
        database.engine().dispose()
    if events.publisher.cache_info().currsize:
        events.publisher().close()
    for cached in (
        configuration.settings,
        database.engine,
        database._autocommit_engine,
        events.publisher,
        dispatch.pipelines,
    ):
        cached.cache_clear()
    _forget_broker()


def _forget_broker() -> None:
    # Celery reads its settings once in a process, and its pools keep the connections to the servers before
    if url := os.environ.get("CELERY_BROKER_URL") or os.environ.get("REDIS_URL"):
        dispatch.broker.conf.broker_url = url
    dispatch.broker._after_fork()

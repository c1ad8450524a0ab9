"""The one way to Postgres, for API and workers alike: a pooled engine per process and three ways to use it.

``transaction()`` is for several statements that belong together, ``autocommit()`` for one statement that is a
transaction by itself (it saves the BEGIN and COMMIT round trips), ``transact(work)`` for what holds several rows that
others hold in another order.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import msgspec
from psycopg import errors as pg
from sqlalchemy import Connection, Engine, MetaData, create_engine, exc, make_url

from domain.errors.neighbours import DatabaseUnavailable
from storage.configuration import settings

T = TypeVar("T")
DEADLOCKS = 3  # times in a row that one transaction may be the one that is given up
BREATH_SECONDS = 0.05  # in which the other one gets what it waits for

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_SESSION = (
    "-c timezone=UTC",  # times leave the database in UTC, whatever the server's own zone
    "-c lock_timeout=15s",  # somebody's forgotten lock becomes a 503, not a queue of requests that hang
    "-c statement_timeout=60s",
    # a worker that froze amid its effects must not keep the next one from them
    "-c idle_in_transaction_session_timeout=60s",
    # nor one whose host is cut off: the server gives up its connection, and the locks with it, after 25 s
    "-c tcp_keepalives_idle=10",
    "-c tcp_keepalives_interval=5",
    "-c tcp_keepalives_count=3",
)
# The same from our side. Without it a request that was sent into a dead network hung for a quarter of an hour.
_NETWORK = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 10_000}


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@cache
def engine() -> Engine:
    """The pooled engine of this process.

    No pool_pre_ping: it costs a round trip a checkout, and a connection that died is reported as DatabaseUnavailable,
    which the callers answer with 503 or a retry anyway; the pool is emptied at the first such error.
    """
    config = settings()
    url = make_url(config.database_url).set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        pool_size=config.database_pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
        json_serializer=_encode,
        json_deserializer=msgspec.json.decode,
        connect_args={
            "connect_timeout": 5,
            "application_name": "millrace",
            "options": " ".join(_SESSION),
            **_NETWORK,
        },
    )


@cache
def _autocommit_engine() -> Engine:
    return engine().execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def transaction() -> Iterator[Connection]:
    """A connection in a transaction, committed at the end of the block and rolled back when it raises.

    Raises:
        DatabaseUnavailable: the server cannot be reached, went away, takes no writes, or has no connection free within
            5 s.
    """
    with _translated(), engine().begin() as connection:
        yield connection


def transact(work: Callable[[Connection], T]) -> T:
    """The answer of ``work(connection)`` in a transaction; done again, from its beginning, when that was rolled back to
    end a deadlock. So ``work`` may act on nothing but the database.

    Raises:
        DatabaseUnavailable: as ``transaction``; also when it was given up three times.
    """
    for _ in range(DEADLOCKS - 1):
        try:
            with transaction() as connection:
                return work(connection)
        except DatabaseUnavailable as error:
            if not _was_deadlocked(error):
                raise
            time.sleep(BREATH_SECONDS)
    with transaction() as connection:
        return work(connection)


def _was_deadlocked(error: DatabaseUnavailable) -> bool:
    return isinstance(error.__cause__, exc.DBAPIError) and isinstance(error.__cause__.orig, pg.DeadlockDetected)


@contextmanager
def autocommit() -> Iterator[Connection]:
    """A connection on which every statement commits by itself. Raises like ``transaction``."""
    with _translated(), _autocommit_engine().connect() as connection:
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise DatabaseUnavailable(retry_after=1) from error
    except exc.InternalError as error:
        if not isinstance(error.orig, pg.ReadOnlySqlTransaction):
            raise
        # a server that has become the standby of another: new connections may lead to that one
        engine().dispose()
        raise DatabaseUnavailable(retry_after=1) from error


def _forget_after_fork() -> None:
    # A forked child must neither use nor close the parent's sockets (celery #1564).
    if engine.cache_info().currsize:
        engine().dispose(close=False)


os.register_at_fork(after_in_child=_forget_after_fork)

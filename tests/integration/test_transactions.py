"""The one place that runs transactions: deadlocks are repeated, and a server that takes no writes is an absent one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text

from domain.errors.neighbours import DatabaseUnavailable
from stack.up import Stack
from storage.database import autocommit, transact, transaction


@pytest.fixture(scope="module", autouse=True)
def two_rows(in_process: Stack) -> None:
    with autocommit() as connection:
        connection.execute(text("CREATE TABLE pairs (id int PRIMARY KEY, n int NOT NULL)"))
        connection.execute(text("INSERT INTO pairs VALUES (1, 0), (2, 0)"))


def test_a_transaction_that_was_given_up_for_another_is_done_again() -> None:
    meeting = threading.Barrier(2)
    runs = []

    def add(first: int, second: int) -> str:
        met = threading.Event()

        def work(connection: Connection) -> str:
            runs.append(first)
            connection.execute(text("UPDATE pairs SET n = n + 1 WHERE id = :id"), {"id": first})
            if not met.is_set():
                met.set()
                meeting.wait(10)  # each holds what the other is about to ask for
            connection.execute(text("UPDATE pairs SET n = n + 1 WHERE id = :id"), {"id": second})
            return "done"

        return transact(work)

    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(add, 1, 2), pool.submit(add, 2, 1)]
        assert [one.result(20) for one in told] == ["done", "done"]
    assert len(runs) in (3, 4), "one of the two, once more; twice, if it was quicker than the other"
    with autocommit() as connection:
        assert list(connection.execute(text("SELECT n FROM pairs")).scalars()) == [2, 2]


def test_what_is_no_deadlock_is_not_done_again() -> None:
    runs = []

    def work(connection: Connection) -> None:
        runs.append(1)
        connection.execute(text("SET LOCAL statement_timeout = 1"))
        connection.execute(text("SELECT pg_sleep(1)"))

    with pytest.raises(DatabaseUnavailable):
        transact(work)
    assert runs == [1]


def test_a_server_that_takes_no_writes_counts_as_unavailable() -> None:
    def write(connection: Connection) -> None:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text("UPDATE pairs SET n = 0"))

    with pytest.raises(DatabaseUnavailable) as caught:
        transact(write)
    assert caught.value.retry_after
    with transaction() as connection:  # by a new connection: it may lead to the server that does
        assert connection.execute(text("UPDATE pairs SET n = 0")).rowcount == 2

"""A Redis that hangs does not hold an order up for long."""

import time

import psutil

from tests.client import User
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.verdict import judge, settled


def test_a_redis_that_hangs_does_not_hold_an_order_up(fire: House, client: User) -> None:
    history = History(client, clients=0, resend=True)
    process = psutil.Process(fire.stack.processes["redis"].pid)
    process.suspend()
    try:
        began = time.monotonic()
        history.order()
        took = time.monotonic() - began
    finally:
        process.resume()
    assert took < 10
    assert settled(fire.stack.env, 60) < 40
    assert judge(history, fire.stack.env, fire.ml, {}).violations == []

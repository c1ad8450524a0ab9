"""Promise 3: Redis holds nothing that is not in Postgres, and while it is away jobs are accepted."""

import time

import redis

from tests.client import User
from tests.faults.conftest import House
from tests.faults.history import History
from tests.faults.verdict import judge, settled

JOBS = 30


def test_a_flushed_redis_loses_nothing(fire: House, client: User) -> None:
    fire.nodes["worker"].kill()
    history = History(client, clients=0, resend=True)
    for _ in range(JOBS):
        history.order()
    with redis.Redis.from_url(fire.stack.env["REDIS_URL"]) as broker:
        assert broker.dbsize() > 0
        broker.flushall()
    fire.nodes["worker"].restart()
    assert settled(fire.stack.env, 60) < 40
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": JOBS}


def test_an_empty_redis_in_place_of_the_lost_one(fire: House, client: User) -> None:
    history = History(client, clients=0, resend=True)
    history.order()
    fire.nodes["redis"].kill()
    began = time.monotonic()
    for _ in range(5):
        history.order()
    assert (time.monotonic() - began) / 5 < 3, "an order does not wait for a dead broker"
    assert len(history.answered) == 6
    fire.nodes["redis"].restart()
    assert settled(fire.stack.env, 60) < 40
    verdict = judge(history, fire.stack.env, fire.ml, {})
    assert verdict.violations == []
    assert verdict.ended == {"succeeded": 6}

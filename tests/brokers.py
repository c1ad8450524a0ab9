"""Which broker the stacks of the tests use: their own Redis, or RabbitMQ with MILLRACE_TEST_BROKER=rabbitmq."""

import atexit
import os
from functools import cache

import redis
from kombu import Connection

from stack.up import Stack
from tests.rabbitmq import RabbitMq

VARIABLE = "MILLRACE_TEST_BROKER"
QUEUES = ("io", "cpu", "mail", "default")


def on_rabbitmq() -> bool:
    """Whether the tests run against RabbitMQ (`make test-rabbitmq`).

    Raises:
        ValueError: the variable names another broker.
    """
    name = os.environ.get(VARIABLE) or "redis"
    if name not in ("redis", "rabbitmq"):
        raise ValueError(f"{VARIABLE} is redis or rabbitmq, not {name!r}")
    return name == "rabbitmq"


def broker_env() -> dict[str, str]:
    """The settings that give a stack the tests' broker, to be laid over its environment; each call an empty one."""
    return {"CELERY_BROKER_URL": _node().new_vhost()} if on_rabbitmq() else {}


def messages(stack: Stack, queue: str) -> int:
    """How many messages wait in a queue."""
    if not on_rabbitmq():
        with redis.Redis.from_url(stack.env["REDIS_URL"]) as connection:
            # a queue is a list for each priority
            return sum(int(connection.llen(name)) for name in connection.scan_iter(f"{queue}*"))
    with _connection(stack) as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


def lose_messages(stack: Stack) -> None:
    """Empty Redis, and RabbitMQ's queues where that is the broker."""
    with redis.Redis.from_url(stack.env["REDIS_URL"]) as connection:
        connection.flushall()
    if on_rabbitmq():
        with _connection(stack) as connection:
            for queue in QUEUES:
                connection.default_channel.queue_purge(queue)


def _connection(stack: Stack) -> Connection:
    return Connection(stack.processes["api"].program.env["CELERY_BROKER_URL"])


@cache
def _node() -> RabbitMq:
    """One for all tests of this process: it takes ten seconds to start."""
    node = RabbitMq()
    atexit.register(node.close)
    node.start()
    return node

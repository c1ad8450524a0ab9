"""Which broker the stacks of the tests use: their own Redis, or RabbitMQ with MILLRACE_TEST_BROKER=rabbitmq."""

import atexit
import os
from functools import cache

from tests.rabbitmq import RabbitMq

VARIABLE = "MILLRACE_TEST_BROKER"


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


@cache
def _node() -> RabbitMq:
    """One for all tests of this process: it takes ten seconds to start."""
    node = RabbitMq()
    atexit.register(node.__exit__, None, None, None)
    node.start()
    return node

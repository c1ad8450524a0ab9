"""How Celery reaches its broker here: it never waits long to send, and never gives up coming back.

Celery's class for both is called AMQP whatever the broker is. With RabbitMQ three things are missing in it (celery 5.7,
py-amqp 5.4; each was met in a test that kills or pauses the node):

- Nothing limits the wait for a confirmation. A node that starts again takes a message whose queue has no leader yet
  and never confirms it: beat stood still for ever.
- A producer whose connection broke goes on with the broken one unless `task_publish_retry` is on, and then it would
  hold up whoever publishes: beat failed with every message after the restart of the node.
- A worker or beat that lost the broker looks for it at intervals that grow to 30 seconds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.app import amqp
from kombu.connection import Connection as KombuConnection

SEND_SECONDS = 2.0
LOOK_SECONDS = (0.5, 0.5, 2.0)  # between two looks for a lost broker: the first, how much longer each time, at most


class Connection(KombuConnection):
    """A connection that is looked for often once it is lost, so that work goes on soon after the broker is back."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        intervals = dict(zip(("interval_start", "interval_step", "interval_max"), LOOK_SECONDS, strict=True))
        return super().ensure_connection(*args, **{**intervals, **kwargs})  # type: ignore[no-untyped-call]


@contextmanager
def time_limit(connection: Any) -> Iterator[None]:
    """Every answer of RabbitMQ within the block comes within two seconds, or a TimeoutError does.

    After one the connection is of no use: a late answer would be taken for that to the next question. Redis has limits
    of its own (``socket_timeout``).

    Raises:
        OperationalError: it cannot be reached.
    """
    if connection.transport.driver_type != "amqp":
        yield
        return
    connection.default_channel  # noqa: B018  # connects
    with connection.connection.transport.having_timeout(SEND_SECONDS):
        yield


class Amqp(amqp.AMQP):  # type: ignore[misc]  # celery has no types
    """What sends every task: of the API, of beat, of the sweep, and a chain's next link from a worker."""

    Connection = Connection

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            connection = producer.connection
            if connection.transport.driver_type != "amqp":
                return send(producer, name, message, **options)
            try:
                with time_limit(connection):
                    return send(producer, name, message, **options)
            except Exception:
                connection.collect()
                producer.revive(connection)  # it connects anew when it is needed
                raise

        return send_task_message

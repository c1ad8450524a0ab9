"""Celery's consumer for RabbitMQ, without its queues for delayed messages."""

from typing import ClassVar

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """As soon as it sees a quorum queue Celery declares 28 more for messages with an ETA, again at each reconnect.

    Delays are in Postgres here, so that would be 28 Raft groups for nothing; and there is no setting against it.
    """

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        default_steps: ClassVar[list[str]] = [
            step for step in CeleryConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

"""Celery's consumer for RabbitMQ: without its queues for delayed messages, and never waiting to tell what it does."""

from typing import Any, ClassVar

from celery.worker.consumer import Consumer as CeleryConsumer


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """As soon as it sees a quorum queue Celery declares 28 more for messages with an ETA, again at each reconnect.

    Delays are in Postgres here, so that would be 28 Raft groups for nothing; and there is no setting against it.
    """

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc]
        default_steps: ClassVar[list[str]] = [
            step for step in CeleryConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """For Flower's events: the worker's main loop would stand still while it waits for a confirmation of each."""
        unconfirmed = {"confirm_publish": False}
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat, transport_options=unconfirmed)
        return self.ensure_connected(connection)

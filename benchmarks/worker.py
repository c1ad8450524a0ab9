"""The workers' app with a chain's bare no-op link added, so that both sides run in the same worker processes."""

import time

from celery import Task

from storage.events import publisher
from workers.app import app

__all__ = ["app", "noop", "stamp"]


@app.task(name="benchmarks.noop", bind=True)
def noop(self: Task, job_id: str) -> None:
    """A link of a chain that does nothing."""


@app.task(name="benchmarks.stamp", bind=True)
def stamp(self: Task, sent_at: float) -> None:
    """Tell how long after ``sent_at`` (epoch seconds) the task began."""
    publisher().rpush("benchmarks:latency", time.time() - sent_at)

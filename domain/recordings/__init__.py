"""Recordings of telephone calls: fetched from mailboxes, listened to, and matched with calls (docs/recordings.md)."""

from collections.abc import Mapping
from typing import Any

from domain.errors.requests import Invalid
from domain.pipelines import Pipeline, Step
from domain.settings import Settings

KIND = "recordings"


def read_params(ordered: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Always raises Invalid: which mailbox it is about is not for the form of a file to say."""
    raise Invalid(field="kind", reason="recordings are fetched by POST /recordings/download, without a file")


PIPELINE = Pipeline(
    name=KIND,
    takes_file=False,
    read_params=read_params,
    steps=(
        Step(name="poll", queue="mail", until=10, short=lambda job: True),
        # it puts itself off before that, and goes on where it stopped
        Step(name="fetch", queue="mail", until=95, short=lambda job: True),
        Step(name="match", queue="mail", until=100, short=lambda job: True),
    ),
)
pipelines = (PIPELINE,)

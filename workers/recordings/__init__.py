"""Recordings: the steps of the pipeline that fetches them, and the ticks beside it."""

from workers.recordings.mango import apply, apply_waiting
from workers.recordings.matching import retry_unmatched

tasks = {"recordings.apply": apply}
schedule = {
    "recordings.unapplied": (apply_waiting, "call_sweep_seconds", "io"),
    "recordings.unmatched": (retry_unmatched, "call_sweep_seconds", "io"),
}

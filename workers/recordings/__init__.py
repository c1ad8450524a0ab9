"""Recordings: the steps of the pipeline that fetches them, and the ticks beside it."""

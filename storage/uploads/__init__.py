"""Resumable uploads: the row that knows what is kept of one, and the way from its last byte to a file and a job."""

from storage.uploads import tables

__all__ = ["tables"]

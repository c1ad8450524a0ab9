"""Mailboxes, their messages, and the recordings that came with them."""

from storage.recordings import tables

__all__ = ["tables"]

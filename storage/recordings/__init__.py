"""Mailboxes, their messages, and the recordings that came with them."""

from storage.recordings import call_tables, tables

__all__ = ["call_tables", "tables"]

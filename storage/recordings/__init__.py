"""Mailboxes, their messages, and the recordings that came with them; calls, and what the exchange has told of them."""

from storage.recordings import accesses, call_tables, keeping, mailboxes, messages, polling, tables

__all__ = ["accesses", "call_tables", "keeping", "mailboxes", "messages", "polling", "tables"]

"""Mailboxes, their messages, and the recordings that came with them."""

from storage.recordings import accesses, keeping, mailboxes, messages, polling, tables

__all__ = ["accesses", "keeping", "mailboxes", "messages", "polling", "tables"]

"""Recordings of telephone calls: fetched from mailboxes, listened to, and matched with calls (docs/recordings.md)."""

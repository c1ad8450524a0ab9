"""Mail servers: getting in, looking around without touching anything, and reading one part of one message."""

from storage.recordings.imap.session import Described, Gone, Session, connected

__all__ = ["Described", "Gone", "Session", "connected"]

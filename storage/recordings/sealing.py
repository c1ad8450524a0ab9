"""Passwords and access tokens of mailboxes at rest (``storage.sealing``)."""

from storage.configuration import settings
from storage.sealing import Sealing, Unreadable

__all__ = ["Unreadable", "seal", "unseal"]

_sealing = Sealing(b"secrets of mailboxes", lambda: settings().mailbox_keys)
seal, unseal = _sealing.seal, _sealing.unseal

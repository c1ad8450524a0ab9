"""Endpoints' secrets at rest (``storage.sealing``)."""

from storage.configuration import settings
from storage.sealing import Sealing, Unreadable

__all__ = ["Unreadable", "seal", "unseal"]

_sealing = Sealing(b"secrets of webhooks", lambda: settings().webhook_keys)
seal, unseal = _sealing.seal, _sealing.unseal

"""Secrets at rest: encrypted with keys that are not in the database (Fernet: AES-128-CBC with HMAC-SHA256).

Whoever reads a copy of the database has none of them. Every key of the settings decrypts, the first encrypts.
"""

import base64
import hmac
from collections.abc import Callable
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Unreadable(Exception):
    """A secret was encrypted with a key that is not among those of the settings."""


class Sealing:
    """For secrets of one purpose: what was sealed for another cannot be opened."""

    def __init__(self, purpose: bytes, keys: Callable[[], tuple[str, ...]]) -> None:
        self._purpose, self._keys = purpose, keys

    def seal(self, secret: str) -> str:
        return _box(self._purpose, self._keys()).encrypt(secret.encode()).decode()

    def unseal(self, sealed: str) -> str:
        """Raises Unreadable."""
        try:
            return _box(self._purpose, self._keys()).decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise Unreadable from None


@cache
def _box(purpose: bytes, keys: tuple[str, ...]) -> MultiFernet:
    # derived: the same words sign access tokens
    derived = (hmac.digest(key.encode(), purpose, "sha256") for key in keys)
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])

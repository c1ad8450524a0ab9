"""Endpoints' secrets at rest: encrypted with keys that are not in the database (Fernet: AES-128-CBC with HMAC-SHA256).

Whoever reads a copy of the database can sign nothing. Every key of the settings decrypts, the first encrypts.
"""

import base64
import hmac
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from storage.configuration import settings


class Unreadable(Exception):
    """A secret was encrypted with a key that is not among those of the settings."""


def seal(secret: str) -> str:
    return _box(settings().webhook_keys).encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str:
    """Raises Unreadable."""
    try:
        return _box(settings().webhook_keys).decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise Unreadable from None


@cache
def _box(keys: tuple[str, ...]) -> MultiFernet:
    # derived: the same words sign access tokens
    derived = (hmac.digest(key.encode(), b"secrets of webhooks", "sha256") for key in keys)
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])

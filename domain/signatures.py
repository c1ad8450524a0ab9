"""Signed requests as Standard Webhooks has them: who sent a body, that it is whole, and that it is not an old one.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

PREFIX = "whsec_"
KEY_BYTES = range(24, 65)  # the specification's bounds
TOLERANCE_SECONDS = 300
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
SIGNATURES_AT_MOST = 20  # several are for the time in which a key is changed


def key_of(secret: str) -> bytes:
    """The key in ``whsec_<base64>``.

    Raises:
        ValueError: it is not of that form, or not of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or len(key) not in KEY_BYTES:
        raise ValueError(f"is not {PREFIX} and the base64 of {KEY_BYTES.start} to {KEY_BYTES.stop - 1} bytes")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers for a body; ``timestamp`` is in seconds since the epoch."""
    signature = base64.b64encode(_mac(key, message_id, str(timestamp), body)).decode()
    return {ID: message_id, TIMESTAMP: str(timestamp), SIGNATURE: f"v1,{signature}"}


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether the request claims to be signed."""
    return SIGNATURE in headers


def verify(key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether one of the signatures is ours and was made within five minutes of ``now``; takes the raw body.

    ``headers`` are by names in lower case. Compares in constant time; signatures of other versions are passed over.
    """
    message_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return False
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    expected = _mac(key, message_id, timestamp, body)
    # all of them, whichever fits: how long it takes says nothing
    fits = [hmac.compare_digest(expected, one) for one in _signatures(headers.get(SIGNATURE, ""))]
    return any(fits)


def _signatures(header: str) -> list[bytes]:
    found = []
    for word in header.split()[:SIGNATURES_AT_MOST]:
        version, _, encoded = word.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(encoded, validate=True))
            except (binascii.Error, ValueError):
                continue
    return found


def _mac(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    # headers arrive decoded as latin-1, which gives their bytes back
    signed = message_id.encode("latin-1", "replace") + b"." + timestamp.encode() + b"." + body
    return hmac.new(key, signed, hashlib.sha256).digest()

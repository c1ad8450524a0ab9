"""Digest fields: what a client says the hash of its bytes is, and whether it is (RFC 9530).

`Content-Digest` is of the bytes as they are sent, `Repr-Digest` of what they represent; of a request's whole body, and
of one part of a form, the two are the same bytes.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import http_sf
import msgspec

from domain.errors.requests import MalformedRequest
from domain.errors.uploads import DigestMismatch

FIELDS = ("Content-Digest", "Repr-Digest")
# The active ones of the registry (RFC 9530, section 7.2); others, the insecure ones too, are ignored as it asks.
ALGORITHMS: Mapping[str, str] = {"sha-256": "sha256", "sha-512": "sha512"}


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """One digest a client sent."""

    field: str
    algorithm: str  # as in ALGORITHMS
    value: bytes


def announced(headers: Iterable[tuple[str, str]]) -> list[Announced]:
    """The digests among (name, value) pairs of headers whose algorithm we know; several lines of a field are one.

    Raises:
        MalformedRequest: a field is no dictionary (RFC 9651), or a digest no byte sequence of its algorithm's length.
    """
    lines: dict[str, list[str]] = {}
    for name, value in headers:
        lines.setdefault(name.lower(), []).append(value)
    return [one for field in FIELDS for one in _read(field, lines.get(field.lower(), ()))]


def _read(field: str, lines: Sequence[str]) -> list[Announced]:
    if not lines:
        return []
    try:
        members: Any = http_sf.parse(", ".join(lines).encode("latin-1"), tltype="dictionary")
    except http_sf.StructuredFieldError as error:
        raise MalformedRequest(field=field, reason=f"{field} is no dictionary of RFC 9651: {error}") from None
    found = []
    for name, (value, _) in members.items():
        if name not in ALGORITHMS:
            continue
        if not isinstance(value, bytes) or len(value) != hashlib.new(ALGORITHMS[name]).digest_size:
            raise MalformedRequest(field=field, reason=f"{field} has no {name} digest in the form `{name}=:...:`")
        found.append(Announced(field=field, algorithm=name, value=value))
    return found


class Digests:
    """Hashes of the same bytes, one by each of some algorithms."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes = {name: hashlib.new(ALGORITHMS[name]) for name in dict.fromkeys(algorithms)}

    def update(self, data: bytes) -> None:
        for one in self._hashes.values():
            one.update(data)

    def hexdigest(self, algorithm: str) -> str:
        return self._hashes[algorithm].hexdigest()

    def check(self, wanted: Iterable[Announced]) -> None:
        """Raises DigestMismatch naming the first field that says otherwise."""
        for one in wanted:
            if self._hashes[one.algorithm].digest() != one.value:
                raise DigestMismatch(field=one.field, algorithm=one.algorithm)


def check(body: bytes, wanted: Sequence[Announced]) -> None:
    """The same of a body that was read whole."""
    digests = Digests(one.algorithm for one in wanted)
    digests.update(body)
    digests.check(wanted)


def field_of(sha256: str) -> str:
    """The value of a digest field, of a hash in hexadecimal digits."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"

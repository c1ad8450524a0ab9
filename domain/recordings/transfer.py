"""Content transfer encodings, undone piece by piece (RFC 2045, section 6), as forgiving as mail has to be."""

import binascii
from collections.abc import Iterable, Iterator

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_JUNK = bytes(byte for byte in range(256) if byte not in _ALPHABET)
_LONGEST_LINE = 64 * 1024  # of quoted-printable; RFC 2045 allows 76


def decoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Raises ValueError for an encoding that is none of the five."""
    match encoding.strip().lower():
        case "base64":
            return _base64(pieces)
        case "quoted-printable":
            return _quoted_printable(pieces)
        case "7bit" | "8bit" | "binary" | "":
            return iter(pieces)
    raise ValueError(f"unknown encoding {encoding!r}")


def _base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece.translate(None, _JUNK)
        whole = len(held) // 4 * 4
        if b"=" in held[:whole]:
            break
        yield binascii.a2b_base64(held[:whole])
        held = held[whole:]
    # what follows the padding is a mailing list's footer, or nothing
    end = held.find(b"=")
    rest = held if end < 0 else held[:end]
    if len(rest) % 4 == 1:
        rest = rest[:-1]  # six bits are no byte
    yield binascii.a2b_base64(rest + b"=" * (-len(rest) % 4))


def _quoted_printable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        end = held.rfind(b"\n") + 1
        if not end and len(held) > _LONGEST_LINE:
            end = len(held) - 2 if b"=" in held[-2:] else len(held)
        yield binascii.a2b_qp(held[:end])
        held = held[end:]
    yield binascii.a2b_qp(held)

"""A message as its server describes it: which of its parts are audio, whether the rules fit, and what it is known by.

Nothing here is fetched: ENVELOPE, BODYSTRUCTURE, RFC822.SIZE and INTERNALDATE are all that is looked at.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from email.message import Message as MimeMessage
from email.utils import collapse_rfc2231_value
from fnmatch import fnmatchcase
from hashlib import sha256
from itertools import takewhile
from typing import Any

import msgspec

from domain.recordings.mailboxes import Rules
from domain.recordings.names import file_name, plain_text

AUDIO_SUFFIXES = (".mp3", ".wav", ".ogg", ".oga", ".opus", ".m4a", ".amr", ".aac", ".flac")
DEEPEST = 20  # multiparts within multiparts that are looked into
MOST_PARTS = 100
_CALL_LIKE = re.compile(r"\d{4}[.\-_]\d{2}[.\-_]\d{2}_+\d{2}-\d{2}-\d{2}__", re.ASCII)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part with audio. ``number`` is IMAP's (RFC 9051, 6.4.5.1), ``octets`` are as encoded."""

    number: str
    name: str
    content_type: str
    encoding: str
    octets: int


class Message(msgspec.Struct, frozen=True, kw_only=True):
    uid: int
    message_id: str | None
    subject: str
    sender: str
    received_at: datetime | None
    size: int
    parts: list[Part]

    @property
    def fingerprint(self) -> str | None:
        """The same under every UIDVALIDITY; None without a Message-ID, since the rest may well be another's."""
        if self.message_id is None:
            return None
        date = self.received_at.isoformat() if self.received_at else ""
        parts = [f"{part.name}\n{part.octets}" for part in self.parts]
        return sha256("\n".join([self.message_id, date, str(self.size), *parts]).encode()).hexdigest()


def fits(message: Message, rules: Rules) -> bool:
    """Whether sender and subject are those of the rules; age is for the server to judge."""
    sender, subject = message.sender.casefold(), message.subject.casefold()
    return _any_in(rules.senders, sender) and _any_in(rules.subjects, subject)


def _any_in(words: Iterable[str], text: str) -> bool:
    words = list(words)
    return not words or any(word.casefold() in text for word in words)


def audio_parts(structure: Any, pattern: str) -> list[Part]:
    """The parts of a BODYSTRUCTURE (nested tuples, RFC 9051, 7.5.2) that are audio and named as the pattern says.

    What calls itself something else is audio when its name is that of audio or of a call. Raises ValueError for a
    structure that is none.
    """
    found: list[Part] = []
    _walk(structure, "", found, pattern.casefold(), 0)
    return found[:MOST_PARTS]


def _walk(node: Any, number: str, found: list[Part], pattern: str, depth: int) -> None:
    if depth > DEEPEST or len(found) >= MOST_PARTS:
        return
    if not isinstance(node, tuple | list) or not node:
        raise ValueError("no structure")
    children = _children(node)
    if children:
        for place, child in enumerate(children, 1):
            _walk(child, f"{number}.{place}" if number else str(place), found, pattern, depth + 1)
        return
    if len(node) < 7 or not isinstance(node[0], bytes):
        raise ValueError("no part")
    kind, subtype = _text(node[0]), _text(node[1])
    if kind == "message" and subtype == "rfc822" and len(node) > 8 and isinstance(node[8], tuple | list):
        # a forwarded message: a multipart in there is numbered from here, a single part is the first
        inside = node[8]
        _walk(inside, number if _children(inside) else f"{number}.1", found, pattern, depth + 1)
        return
    if (part := _part(node, kind, subtype, number or "1")) and fnmatchcase(part.name.casefold(), pattern):
        found.append(part)


def _children(node: Sequence[Any]) -> list[Any]:
    if isinstance(node[0], list):  # as IMAPClient has it: the children as one list
        return list(node[0])
    return list(takewhile(lambda child: isinstance(child, tuple), node))


def _part(node: Sequence[Any], kind: str, subtype: str, number: str) -> Part | None:
    name = file_name(_disposition(node[7:]), _pairs(node[2]))
    lowered = name.casefold()
    if kind != "audio" and not (
        kind in ("application", "text", "video")
        and (lowered.endswith(AUDIO_SUFFIXES) or (_CALL_LIKE.match(lowered) and kind == "application"))
    ):
        return None
    octets = node[6] if isinstance(node[6], int) else 0
    encoding = _text(node[5]) or "7bit"
    return Part(number=number, name=name, content_type=f"{kind}/{subtype}", encoding=encoding, octets=octets)


def _disposition(extension: Sequence[Any]) -> list[tuple[str, str]]:
    """Where it stands depends on the type and on what the server leaves out: a pair of a word and its parameters."""
    for one in extension:
        if isinstance(one, bytes) and one.lower().startswith((b"attachment", b"inline")):
            return _unparsed(one)
        if (
            isinstance(one, tuple | list)
            and len(one) == 2
            and isinstance(one[0], bytes)
            and one[0].lower() in (b"attachment", b"inline")
        ):
            return _pairs(one[1])
    return []


def _unparsed(header: bytes) -> list[tuple[str, str]]:
    """Some servers hand the header on as it is, for the client to parse (pymap 0.36)."""
    parsed = MimeMessage()
    parsed["Content-Disposition"] = header.decode("utf-8", "surrogateescape").replace("\r", "").replace("\n", "")
    found = parsed.get_params(header="Content-Disposition", unquote=True) or []
    return [(name, collapse_rfc2231_value(value)) for name, value in found[1:]]


def _pairs(flat: Any) -> list[tuple[str, str]]:
    if not isinstance(flat, tuple | list):
        return []
    words = [one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else str(one) for one in flat]
    return list(zip(words[::2], words[1::2], strict=False))


def _text(value: Any) -> str:
    return value.decode("ascii", "replace").lower() if isinstance(value, bytes) else ""


def message_of(uid: int, fetched: dict[bytes, Any], pattern: str) -> Message:
    """Of a FETCH's items. Raises ValueError when they make no sense."""
    envelope, structure = fetched.get(b"ENVELOPE"), fetched.get(b"BODYSTRUCTURE")
    if structure is None:
        raise ValueError("no structure")
    message_id = plain_text(getattr(envelope, "message_id", None)) or None
    return Message(
        uid=uid,
        message_id=message_id,
        subject=plain_text(getattr(envelope, "subject", None)),
        sender=_sender(getattr(envelope, "from_", None)),
        received_at=fetched.get(b"INTERNALDATE"),
        size=int(fetched.get(b"RFC822.SIZE") or 0),
        parts=audio_parts(structure, pattern),
    )


def _sender(addresses: Any) -> str:
    if not addresses:
        return ""
    first = addresses[0]
    address = "@".join(plain_text(word) for word in (first.mailbox, first.host) if word)
    name = plain_text(first.name)
    return f"{name} <{address}>" if name else address

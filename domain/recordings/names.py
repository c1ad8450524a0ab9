"""What the name of an attachment says: when the call was, and between which numbers.

``YYYY.MM.DD__HH-MM-SS__<from>__<to>[.mp3]``, as observed; the time is local to the exchange. Names come through MIME
in every state (RFC 2047 words where RFC 2231 belongs, both, unknown charsets), so reading one never raises.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import decode_header
from email.utils import collapse_rfc2231_value, decode_params
from zoneinfo import ZoneInfo

import msgspec

from domain.files import clean_name

_CALL = re.compile(
    r"(?<!\d)(\d{4})([.\-_])(\d{2})\2(\d{2})[_ T]{1,2}(\d{2})[-.:](\d{2})[-.:](\d{2})"
    r"__(\+?[\w ()-]{1,40}?)__(\+?[\w ()-]{1,40}?)(?:\.\w{1,5})?$",
    re.ASCII,
)


class CallName(msgspec.Struct, frozen=True, kw_only=True):
    started_at: datetime  # UTC
    from_number: str | None  # E.164
    to_number: str | None


def read_call(name: str, zone: ZoneInfo, normalised: Callable[[str], str | None]) -> CallName | None:
    """What the name says of the call; None where it is none of these names. A number that is none is None."""
    found = _CALL.search(name.strip())
    if found is None:
        return None
    year, _, month, day, hour, minute, second, caller, callee = found.groups()
    try:
        # of an hour that comes twice, the first: no name says which
        local = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=zone)
        started_at = local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return CallName(started_at=started_at, from_number=normalised(caller), to_number=normalised(callee))


def plain_text(raw: bytes | str | None) -> str:
    """A header's text with its RFC 2047 words decoded, whatever charset they claim. Never raises."""
    if raw is None:
        return ""
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    if "=?" in text:
        try:
            words = decode_header(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        except (MessageError, ValueError):
            words = []
        text = "".join(_word(word, charset) for word, charset in words) or text
    if any("\udc80" <= character <= "\udcff" for character in text):
        # eight-bit headers without a word about their charset: old Russian senders mean windows-1251
        text = text.encode("utf-8", "surrogateescape").decode("cp1251", "replace")
    return text.replace("\0", "\ufffd").strip()


def _word(word: bytes | str, charset: str | None) -> str:
    if isinstance(word, str):
        return word
    for one in (charset or "utf-8", "utf-8", "cp1251"):
        try:
            return word.decode(one)
        except (LookupError, UnicodeError):
            continue
    return word.decode("latin-1")


def file_name(disposition: Sequence[tuple[str, str]], content_type: Sequence[tuple[str, str]]) -> str:
    """The name of an attachment by the parameters of its two headers: `filename` before `name`; "" where none is.

    RFC 2231 (charset, continuations), RFC 2047 words in quotes, and plain text in UTF-8 or windows-1251.
    """
    for parameters, wanted in ((disposition, "filename"), (content_type, "name")):
        name = _parameter(parameters, wanted)
        if name:
            return clean_name(name) or ""
    return ""


def _parameter(parameters: Sequence[tuple[str, str]], wanted: str) -> str:
    lowered = [(name.lower(), value) for name, value in parameters]
    try:
        decoded = decode_params([("", ""), *lowered])[1:]
    except (ValueError, IndexError, LookupError, TypeError):
        decoded = [(name.rstrip("*"), value) for name, value in lowered]
    for name, value in decoded:
        if name == wanted:
            try:
                # decode_params puts quotes around plain values
                text = collapse_rfc2231_value(value) if isinstance(value, tuple) else value.strip('"')
            except (LookupError, ValueError):
                text = str(value[-1])
            return plain_text(text)
    return ""

"""What a Mango Office virtual PBX reports of calls, and how it signs it. Source: the vendor's "VPBX API" document.

A notification is a form with ``vpbx_api_key``, ``sign`` and ``json``. The vendor's own examples write some integers as
strings and leave fields empty instead of out; both are taken.
"""

import hashlib
import hmac
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from domain.errors.recordings import SignatureRefused
from domain.errors.requests import MalformedRequest

FORM_FIELDS = 16  # at most; three are ours

# Bounds are what the database holds: an answer to nonsense is better given here than there.
Word = Annotated[str, Meta(max_length=256, pattern="^[^\\x00]*$")]
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern="^[^\\x00]*$")]
Second = Annotated[int, Meta(ge=0, le=253_402_300_799)]  # of Unix time, up to the year 9999
Number = Annotated[int, Meta(ge=-(2**31), lt=2**31)]


class Kind(StrEnum):
    """What a notification is about; the path it is sent to, in the vendor's order ``/events/<kind>``."""

    CALL = "call"
    SUMMARY = "summary"
    RECORDING = "recording"
    RECORD_ADDED = "record/added"
    OTHER = "other"
    """Something the exchange tells and calls are not made of (SMS, DTMF); kept, and nothing else."""


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a leg or a call. ``number`` may be a SIP address."""

    extension: Word | None = None
    number: Word | None = None
    line_number: Word | None = None


NOBODY = Party()


class CallEvent(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """events/call: one leg of a call is in another state."""

    entry_id: Name
    call_id: Name
    timestamp: Second
    seq: Number
    call_state: Word
    location: Word | None = None
    from_: Party = NOBODY
    to: Party = NOBODY
    disconnect_reason: Number | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """events/summary: a call is over. ``forward_time`` and ``talk_time`` are 0 where it did not come to that."""

    entry_id: Name
    call_direction: Number | None = None
    from_: Party = NOBODY
    to: Party = NOBODY
    line_number: Word | None = None
    create_time: Second
    forward_time: Second = 0
    talk_time: Second = 0
    end_time: Second
    entry_result: Number | None = None
    disconnect_reason: Number | None = None


class RecordingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """events/recording: the exchange records a leg."""

    entry_id: Name
    recording_id: Name
    recording_state: Word
    call_id: Word | None = None
    seq: Number = 0
    timestamp: Second = 0
    completion_code: Number | None = None


class RecordAdded(msgspec.Struct, frozen=True, kw_only=True):
    """events/record/added: a recording's file is ready at the exchange."""

    entry_id: Name
    recording_id: Name
    timestamp: Second = 0


Message = CallEvent | Summary | RecordingEvent | RecordAdded
_TYPES: dict[Kind, type[Message]] = {
    Kind.CALL: CallEvent,
    Kind.SUMMARY: Summary,
    Kind.RECORDING: RecordingEvent,
    Kind.RECORD_ADDED: RecordAdded,
}


def form_of(body: bytes) -> dict[str, bytes]:
    """The fields of an ``application/x-www-form-urlencoded`` body, decoded once and to the very bytes that were sent:
    the signature is over those, whatever their encoding.

    Raises:
        MalformedRequest: a field is there twice, or there are too many.
    """
    try:
        # Latin-1 is every byte as itself, there and back
        pairs = parse_qsl(
            body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=FORM_FIELDS
        )
    except ValueError as error:
        raise MalformedRequest(reason=str(error)) from None
    fields = {name: value.encode("latin-1") for name, value in pairs}
    if len(fields) < len(pairs):
        raise MalformedRequest(reason="a field is there twice")
    return fields


def signature(key: str, salt: str, json: bytes) -> str:
    """Lower-case hex SHA-256 of key, text and salt."""
    return hashlib.sha256(key.encode() + json + salt.encode()).hexdigest()


def verified(form: dict[str, bytes], key: str, salt: str) -> bytes:
    """The JSON text of a notification that is signed as the exchange does, byte for byte.

    Raises:
        SignatureRefused: the key or the signature is another, or one of ours is not set.
    """
    json = form.get("json", b"")
    # both are compared, whatever the first says: how long it takes tells nothing
    key_fits = hmac.compare_digest(form.get("vpbx_api_key", b""), key.encode())
    sign_fits = hmac.compare_digest(form.get("sign", b""), signature(key, salt, json).encode())
    if not (key and salt and json and key_fits and sign_fits):
        raise SignatureRefused
    return json


def kind_of(json: bytes) -> Kind:
    """Told by the fields, where the path does not say it. What is no JSON object at all is OTHER."""
    try:
        fields = msgspec.json.decode(json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Kind.OTHER
    if not isinstance(fields, dict):
        return Kind.OTHER
    if "call_state" in fields:
        return Kind.CALL
    if "recording_state" in fields:
        return Kind.RECORDING
    if "recording_id" in fields and "entry_id" in fields:
        return Kind.RECORD_ADDED
    if "entry_result" in fields or ("create_time" in fields and "end_time" in fields):
        return Kind.SUMMARY
    return Kind.OTHER


def read(kind: Kind, json: bytes) -> Message | None:
    """The message, or None for a kind that calls are not made of.

    Raises:
        ValueError: it is not what its kind says; the sentence names the field.
    """
    if kind is Kind.OTHER:
        return None
    try:
        return msgspec.convert(_tidy(msgspec.json.decode(json)), _TYPES[kind], strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_EMPTY: tuple[Any, ...] = (None, "", [], {})
_TEXTS = frozenset({"entry_id", "call_id", "recording_id", "extension", "number", "line_number"})


def _tidy(value: Any) -> Any:
    """Without what is empty (``""`` for a number and ``[]`` for an object are how PHP says that there is none), and
    with names and numbers of telephones as text, though they may look like integers."""
    if not isinstance(value, dict):
        return value
    return {
        name: str(one) if name in _TEXTS and type(one) is int else _tidy(one)
        for name, one in value.items()
        if one not in _EMPTY
    }

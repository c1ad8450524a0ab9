"""Files: what one is to a client, and what its name and its first bytes say."""

import mimetypes
import re
import unicodedata
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

import filetype
import msgspec
from msgspec import Meta

Kind = Literal["single", "zip"]
FileId = Annotated[UUID, Meta(examples=["01994d2e-6a4f-7f12-b6a8-c43e5b7d9012"])]

SNIFF_BYTES = 4096  # what content_type_of and kind_of look at
NAME_CHARACTERS = 255  # the longest name most file systems keep
UNNAMED = "file"
UNKNOWN_TYPE = "application/octet-stream"

# a local file header, the end record of an archive without entries, the marker of a span that needed no second volume
# (APPNOTE.TXT 4.3.7, 4.3.16, 8.5.4)
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04", b"PK\x07\x08PK\x03\x04")


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file as its owner sees it."""

    id: FileId
    filename: Annotated[
        str,
        Meta(
            description="The unique stored name, for URLs: `{id}{extension}`",
            examples=["01994d2e-6a4f-7f12-b6a8-c43e5b7d9012.zip"],
        ),
    ]
    name: Annotated[
        str, Meta(description="What its owner called it, at most 255 characters, no path", examples=["scans.zip"])
    ]
    size: Annotated[int, Meta(description="Bytes", examples=[8885])]
    content_type: Annotated[str, Meta(description="By its first bytes where they say it", examples=["application/zip"])]
    sha256: Annotated[
        str,
        Meta(
            description="64 hexadecimal digits",
            examples=["9bdb9494a5b16374a356cb08c5c0d34d7b1faf65ecc8905a93299856c42a686d"],
        ),
    ]
    type: Annotated[Kind, Meta(description="By content, not by name", examples=["zip"])]
    created_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:41:51.568627Z"])]


class FilePage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of files, newest first; pass ``next`` as ``after`` for the following one, null after the last."""

    items: list[File]
    next: FileId | None


class FileUrl(msgspec.Struct, frozen=True, kw_only=True):
    """Where a file can be read without a token, and until when."""

    url: Annotated[
        str,
        Meta(
            examples=[
                "https://storage.example.org/millrace/input/01994d2e-6a4f-7f12-b6a8-c43e5b7d9012"
                "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=900&X-Amz-Signature=5f0c..."
            ]
        ),
    ]
    expires_at: Annotated[datetime, Meta(tz=True, examples=["2025-09-15T11:56:51.568627Z"])]


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """A received file, complete in the object storage; a row of `files` is made of it."""

    id: UUID  # becomes the file's
    key: str  # in the object storage; clients never see it
    name: str
    size: int  # bytes
    sha256: str
    content_type: str
    kind: Kind
    local_headers: str | None = None  # of an archive whose bytes went by: see domain.archives.walking
    twin: str | None = None  # the key of an object of the same owner with the same bytes


def stored_name(file_id: UUID, name: str) -> str:
    """The unique name a file is reached by: its id and, where it is harmless, its extension."""
    match = re.search(r"[^.](\.[a-z0-9]{1,10})\Z", name.lower())
    return f"{file_id}{match[1] if match else ''}"


# ---------------------------------------------------------------- what the content says


def kind_of(head: bytes) -> Kind:
    """`zip` for what begins like a ZIP archive (office documents are archives too), else `single`."""
    return "zip" if head.startswith(ZIP_MAGIC) else "single"


def content_type_of(head: bytes, declared: str | None, name: str) -> str:
    """The media type by the first bytes; where they say nothing, what the client declared, else by the name."""
    if kind := filetype.guess(head):
        return str(kind.mime)
    plain = (declared or "").partition(";")[0].strip().lower()
    if plain not in {"", UNKNOWN_TYPE} and re.fullmatch(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}", plain):
        return plain
    return mimetypes.guess_type(name, strict=True)[0] or UNKNOWN_TYPE


def inert(content_type: str) -> str:
    """The media type itself, or one that nobody runs for what a browser would: pages, scripts, XML with scripts in it.

    For answers whose other headers are not ours to choose.
    """
    kind, _, subtype = content_type.partition("/")
    runs = subtype in {"html", "xml", "javascript", "ecmascript", "x-javascript", "pdf"} or subtype.endswith("+xml")
    return UNKNOWN_TYPE if runs or kind in {"multipart", "message"} else content_type


# ---------------------------------------------------------------- names on the way in


def name_from(disposition: str) -> str | None:
    """The file name in a Content-Disposition header, None where it has no `filename` at all (RFC 6266, RFC 7578 4.2).

    Empty is what a browser sends for a form whose file was not chosen.
    ``disposition`` is the header's bytes decoded as latin-1, so nothing is lost before the encoding is known.
    `filename*` (RFC 8187) wins over `filename`; RFC 7578 forbids it in forms, but clients send it.
    """
    options = {
        match[1].lower(): match[2]
        for match in re.finditer(r';\s*([^\s=;"]+)\s*=\s*("(?:\\.|[^"\\])*"|[^;]*)', disposition)
    }
    if extended := options.get("filename*", "").strip('" \t'):
        charset, value = re.fullmatch(r"(?:([^']*)'[^']*')?(.*)", extended, re.DOTALL).groups("")  # type: ignore[union-attr]
        raw = unquote_to_bytes(value)
        return clean_name(_decode(raw, charset))
    if (plain := options.get("filename")) is None:
        return None
    return clean_name(decode_text(_unquote(plain.strip()).encode("latin-1", "replace")))


def decode_text(raw: bytes) -> str:
    """Text of an unknown client, never failing: UTF-8 (also when it went through latin-1 once more), else windows-1251
    where that gives plausible Russian, else UTF-8 with replacement characters."""
    try:
        return _repaired(raw.decode())
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("cp1251")
    except UnicodeDecodeError:
        return raw.decode(errors="replace")
    return text if _plausible(text) else raw.decode(errors="replace")


def clean_name(text: str) -> str:
    """A name without path and control characters, composed (NFC: macOS sends й as two), at most 255 characters.

    Empty where nothing is left of it.
    """
    kept = "".join(c for c in unicodedata.normalize("NFC", text) if not _invisible(c))
    name = re.split(r"[/\\]", kept.rstrip("/\\ "))[-1].strip().rstrip(". ")
    if len(name) > NAME_CHARACTERS:
        stem, dot, extension = name.rpartition(".")
        keep = f".{extension}" if dot and stem and len(extension) <= 16 else ""
        name = name[: NAME_CHARACTERS - len(keep)] + keep
    return name


def _decode(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset or "utf-8")  # named by the client: nothing to repair
    except (LookupError, ValueError):  # an unknown charset, or bytes that are not in it
        return decode_text(raw)


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    inner = value[1:-1]
    if '\\"' in inner:  # the quoted-string of RFC 6266; browsers write %22 instead and leave a backslash alone
        return re.sub(r'\\(["\\])', r"\1", inner)
    return inner.replace("%22", '"').replace("%0D", "").replace("%0A", "")


def _repaired(text: str) -> str:
    """Undo UTF-8 that was read as latin-1 or windows-1252 and encoded again; other text is returned as it is."""
    if text.isascii():
        return text
    try:
        again = b"".join(_byte(c) for c in text).decode()
    except UnicodeError:
        return text
    return again


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def _plausible(text: str) -> bool:
    """Whether this is Russian: mostly Cyrillic where it is not ASCII, and no word of both alphabets."""
    foreign = [c for c in text if not c.isascii()]
    cyrillic = sum("А" <= c <= "я" or c in "Ёё№«»—–" for c in foreign)
    return cyrillic >= 0.8 * len(foreign) and not re.search(r"[A-Za-z][А-яЁё]|[А-яЁё][A-Za-z]", text)


def _invisible(character: str) -> bool:
    # controls, lone surrogates, line separators, and the marks that turn the reading direction ("gpj.exe" as "exe.jpg")
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in _DIRECTION_MARKS


_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


# ---------------------------------------------------------------- names on the way out


def attachment(name: str) -> str:
    """A Content-Disposition that saves under this name, Cyrillic included (RFC 6266 appendix D)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

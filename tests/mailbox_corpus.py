"""A mailbox as bad as they come: every kind of name, charset, structure and encoding, and the audio that is in it."""

import base64
import io
import random
import struct
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.mime.audio import MIMEAudio
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from hashlib import sha256
from typing import NamedTuple

BEGINNING = datetime(2025, 9, 15, 8, 0, 0)


class Letter(NamedTuple):
    raw: bytes
    audio: tuple[bytes, ...]  # what is to be kept of it


def sound(seed: int, seconds: float = 0.2, rate: int = 8000) -> bytes:
    """A WAV of its own for every seed."""
    noise = random.Random(seed)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        samples = [noise.randrange(-3000, 3000) for _ in range(int(seconds * rate))]
        out.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return buffer.getvalue()


def call_name(number: int, suffix: str = ".wav", separator: str = ".") -> str:
    at = BEGINNING + timedelta(minutes=number)
    date = at.strftime(f"%Y{separator}%m{separator}%d__%H-%M-%S")
    return f"{date}__7916{number:07d}__74951234567{suffix}"


def digest(audio: bytes) -> str:
    return sha256(audio).hexdigest()


def letters(number: int, seed: int = 1) -> list[Letter]:
    """So many letters, of all kinds in turn; about one in six holds no audio, or audio that others hold too."""
    kinds = [
        _plain,
        _cyrillic,
        _nested,
        _inline,
        _no_message_id,
        _octet_stream,
        _broken_charset,
        _eight_bit_headers,
        _quoted_printable,
        _rfc2047_name,
        _rfc2231_name,
        _same_name_other_audio,
        _two_in_one,
        _text_only,
        _picture,
        _whole_body,
        _same_audio,
        _same_message_id,
    ]
    return [kinds[n % len(kinds)](seed * 100_000 + n, n) for n in range(number)]


def wanted(some: list[Letter]) -> set[str]:
    return {digest(audio) for letter in some for audio in letter.audio}


def _letter(n: int, subject: str = "Call recording", message_id: bool = True) -> EmailMessage:
    letter = EmailMessage()
    letter["From"] = "auto-mailer@mangotele.com"
    letter["To"] = "recordings@example.com"
    letter["Subject"] = subject
    letter["Date"] = (BEGINNING + timedelta(minutes=n)).replace(tzinfo=UTC)
    if message_id:
        letter["Message-ID"] = f"<{n}.{subject.isascii()}@mangotele.com>"
    letter.set_content("The recording is attached.\n")
    return letter


def _attached(letter: EmailMessage, audio: bytes, name: str, kind: str = "audio/wav", **more: str) -> Letter:
    main, sub = kind.split("/")
    letter.add_attachment(audio, maintype=main, subtype=sub, filename=name, **more)
    return Letter(letter.as_bytes(), (audio,))


def _plain(seed: int, n: int) -> Letter:
    return _attached(_letter(n), sound(seed), call_name(n))


def _cyrillic(seed: int, n: int) -> Letter:
    return _attached(_letter(n, "Запись разговора от Марии"), sound(seed), f"Запись {n}.wav")


def _nested(seed: int, n: int) -> Letter:
    """multipart/mixed(multipart/related(multipart/alternative(text, html), picture), audio in multipart/mixed)."""
    outer = MIMEMultipart("mixed")
    outer["From"], outer["Subject"], outer["Message-ID"] = "x@mangotele.com", "nested", f"<nested-{seed}@x>"
    related, alternative, inner = MIMEMultipart("related"), MIMEMultipart("alternative"), MIMEMultipart("mixed")
    alternative.attach(MIMEText("text", "plain", "utf-8"))
    alternative.attach(MIMEText("<p>text</p>", "html", "utf-8"))
    related.attach(alternative)
    audio = sound(seed)
    part = MIMEAudio(audio, "wav")
    part.add_header("Content-Disposition", "attachment", filename=call_name(n))
    inner.attach(part)
    outer.attach(related)
    outer.attach(inner)
    return Letter(outer.as_bytes(), (audio,))


def _inline(seed: int, n: int) -> Letter:
    return _attached(_letter(n), sound(seed), call_name(n), disposition="inline")


def _no_message_id(seed: int, n: int) -> Letter:
    return _attached(_letter(n, message_id=False), sound(seed), call_name(n))


def _octet_stream(seed: int, n: int) -> Letter:
    return _attached(_letter(n), sound(seed), call_name(n, suffix=""), "application/octet-stream")


def _broken_charset(seed: int, n: int) -> Letter:
    letter = _plain(seed, n)
    raw = letter.raw.replace(
        b"Subject: Call recording", b"Subject: =?x-no-such-charset?B?w+/w6OLl8g==?= =?utf-8?B?!!?="
    )
    return Letter(raw.replace(b'charset="utf-8"', b'charset="x-unknown"'), letter.audio)


def _eight_bit_headers(seed: int, n: int) -> Letter:
    letter = _plain(seed, n)
    return Letter(letter.raw.replace(b"Call recording", "Запись разговора".encode("cp1251")), letter.audio)


def _quoted_printable(seed: int, n: int) -> Letter:
    audio = sound(seed)
    letter = _letter(n)
    letter.add_attachment(audio, maintype="audio", subtype="wav", filename=call_name(n), cte="quoted-printable")
    # the line break before the boundary is not the audio's; a soft one says so to servers that count it in (pymap)
    before, boundary, after = letter.as_bytes().rpartition(b"\n--===")
    return Letter(before + b"=" + boundary + after, (audio,))


def _named_by(header: bytes, seed: int, n: int) -> Letter:
    audio = sound(seed)
    body = base64.encodebytes(audio)
    raw = (
        b"From: auto-mailer@mangotele.com\r\nSubject: named\r\nMessage-ID: <named-%d@x>\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhere\r\n--b\r\n'
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n" % seed
    )
    return Letter(raw + header + b"\r\n\r\n" + body.replace(b"\n", b"\r\n") + b"\r\n--b--\r\n", (audio,))


def _rfc2047_name(seed: int, n: int) -> Letter:
    word = base64.b64encode(f"Звонок {n}.wav".encode()).decode()
    return _named_by(f'Content-Disposition: attachment; filename="=?utf-8?B?{word}?="'.encode(), seed, n)


def _rfc2231_name(seed: int, n: int) -> Letter:
    name = "".join(f"%{byte:02X}" for byte in f"Звонок {n}".encode())
    header = f"Content-Disposition: attachment;\r\n filename*0*=utf-8''{name};\r\n filename*1=\".wav\""
    return _named_by(header.encode(), seed, n)


def _same_name_other_audio(seed: int, n: int) -> Letter:
    return _attached(_letter(n, message_id=False), sound(seed), call_name(7))


def _two_in_one(seed: int, n: int) -> Letter:
    letter = _letter(n)
    first, second = sound(seed), sound(seed + 50_000)
    letter.add_attachment(first, maintype="audio", subtype="wav", filename=call_name(n))
    letter.add_attachment(second, maintype="audio", subtype="wav", filename=call_name(n, separator="-"))
    return Letter(letter.as_bytes(), (first, second))


def _text_only(seed: int, n: int) -> Letter:
    return Letter(_letter(n).as_bytes(), ())


def _picture(seed: int, n: int) -> Letter:
    letter = _letter(n)
    letter.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png")
    return Letter(letter.as_bytes(), ())


def _whole_body(seed: int, n: int) -> Letter:
    audio = sound(seed)
    part = MIMEAudio(audio, "wav")
    part["From"], part["Subject"], part["Message-ID"] = "x@mangotele.com", "whole", f"<whole-{seed}@x>"
    part.add_header("Content-Disposition", "attachment", filename=call_name(n))
    return Letter(part.as_bytes(), (audio,))


def _same_audio(seed: int, n: int) -> Letter:
    """As the first letter of its kind, with a name and an id of its own."""
    return _attached(_letter(n), sound(seed // 100_000 * 100_000), call_name(n))


def _same_message_id(seed: int, n: int) -> Letter:
    letter = _letter(n)
    del letter["Message-ID"]
    letter["Message-ID"] = "<the same for all of us@x>"
    return _attached(letter, sound(seed), call_name(n))


def big(seed: int, size: int) -> Iterator[Letter]:
    audio = sound(seed, 0.1) + random.Random(seed).randbytes(size)
    yield _attached(_letter(seed), audio, call_name(seed))

"""Letters as servers describe them: names in every state, structures, and encodings undone piece by piece."""

import base64
import contextlib
import quopri
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.recordings import phones
from domain.recordings.mail import DEEPEST, MOST_PARTS, Message, Part, audio_parts, fits, message_of
from domain.recordings.mailboxes import Rules
from domain.recordings.names import file_name, plain_text, read_call
from domain.recordings.transfer import decoded

MOSCOW = ZoneInfo("Europe/Moscow")


def russian(raw: str) -> str | None:
    return phones.normalised(raw, region="RU")


# ---------------------------------------------------------------- names of calls


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2025.09.15__14-40-02__79161234567__74951234567.mp3", ("11:40:02", "+79161234567", "+74951234567")),
        ("2025-09-15__14-40-02__79161234567__74951234567.wav", ("11:40:02", "+79161234567", "+74951234567")),
        ("2025.09.15__14-40-02__79161234567__74951234567", ("11:40:02", "+79161234567", "+74951234567")),
        ("rec 2025.09.15__14-40-02__89161234567__84951234567.ogg", ("11:40:02", "+79161234567", "+74951234567")),
        ("2025.09.15__14-40-02__anonymous__74951234567.mp3", ("11:40:02", None, "+74951234567")),
        ("2025.09-15__14-40-02__79161234567__74951234567.mp3", None),  # two kinds of separators
        ("2025.13.15__14-40-02__79161234567__74951234567.mp3", None),
        ("2025.09.15__24-40-02__79161234567__74951234567.mp3", None),
        ("0001.01.01__00-00-00__79161234567__74951234567.mp3", None),  # before all time, in UTC
        ("12025.09.15__14-40-02__79161234567__74951234567.mp3", None),
        ("запись.mp3", None),
        ("", None),
    ],
)
def test_what_a_name_says_of_the_call(name: str, expected: tuple[str, str | None, str | None] | None) -> None:
    call = read_call(name, MOSCOW, russian)
    if expected is None:
        assert call is None
    else:
        assert call is not None
        assert (f"{call.started_at:%H:%M:%S}", call.from_number, call.to_number) == expected
        assert call.started_at.date().isoformat() == "2025-09-15"


def test_of_an_hour_that_comes_twice_the_first() -> None:
    call = read_call("2025.10.26__02-30-00__79161234567__74951234567.mp3", ZoneInfo("Europe/Berlin"), russian)
    assert call is not None
    assert call.started_at == datetime(2025, 10, 26, 0, 30, tzinfo=UTC)


@given(
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1)).map(
        lambda at: at.replace(microsecond=0)
    ),
    st.sampled_from([".", "-"]),
    st.sampled_from(["", ".mp3", ".wav", ".ogg", ".m4a", ".amr"]),
)
def test_every_time_is_read_back(at: datetime, separator: str, suffix: str) -> None:
    date = f"{at:%Y}{separator}{at:%m}{separator}{at:%d}"
    call = read_call(f"{date}__{at:%H-%M-%S}__79161234567__74951234567{suffix}", ZoneInfo("UTC"), russian)
    assert call is not None
    assert call.started_at == at.replace(tzinfo=UTC)


@given(st.text(max_size=80))
def test_reading_a_name_never_raises(name: str) -> None:
    read_call(name, MOSCOW, russian)


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"=?utf-8?B?0JfQsNC/0LjRgdGM?=", "Запись"),
        (b"=?koi8-r?B?+sHQydPY?=", "Запись"),
        (b"=?x-no-such-charset?B?x+Dv6PH8?=", "Запись"),  # windows-1251, said to be what nobody knows
        ("Запись".encode("cp1251"), "Запись"),
        ("Запись".encode(), "Запись"),
        (b"plain", "plain"),
        (b"=?utf-8?B?!!?=", "=?utf-8?B?!!?="),
        (None, ""),
        (b"a\0b", "a\ufffdb"),
    ],
)
def test_headers_are_read_whatever_charset_they_claim(raw: bytes | None, text: str) -> None:
    assert plain_text(raw) == text


@given(st.binary(max_size=200))
def test_a_header_never_raises_and_can_be_stored(raw: bytes) -> None:
    text = plain_text(raw)
    text.encode()
    assert "\0" not in text


@pytest.mark.parametrize(
    ("disposition", "content_type", "name"),
    [
        ([("filename", "a.mp3")], [("name", "b.mp3")], "a.mp3"),
        ([], [("name", "b.mp3")], "b.mp3"),
        ([("filename", '"quoted.mp3"')], [], "quoted.mp3"),
        ([("filename", "=?utf-8?B?0JfQsNC/0LjRgdGMLm1wMw==?=")], [], "Запись.mp3"),
        ([("filename*", "utf-8''%D0%97%D0%B0%D0%BF%D0%B8%D1%81%D1%8C.mp3")], [], "Запись.mp3"),  # as Dovecot joins it
        (
            [("filename*0*", "utf-8''%D0%97%D0%B0"), ("filename*1*", "%D0%BF%D0%B8"), ("filename*2", "c.mp3")],
            [],
            "Запиc.mp3",
        ),
        ([("FileName*0", "first "), ("FILENAME*1", "second.mp3")], [], "first second.mp3"),
        ([("filename*", "x-unknown''%D0%97.mp3")], [], None),  # something, and no exception
        ([("filename", "../../etc/passwd")], [], "passwd"),
        ([], [], ""),
    ],
)
def test_names_of_attachments(
    disposition: list[tuple[str, str]], content_type: list[tuple[str, str]], name: str | None
) -> None:
    found = file_name(disposition, content_type)
    assert name is None or found == name


_words = st.sampled_from(
    ["filename", "filename*", "filename*0", "filename*0*", "filename*1", "name", "name*", "FILENAME", ""]
)


@given(st.lists(st.tuples(_words, st.text(max_size=30)), max_size=5))
def test_names_never_raise(parameters: list[tuple[str, str]]) -> None:
    assert "/" not in file_name(parameters, parameters)


# ---------------------------------------------------------------- structures


def leaf(
    kind: bytes = b"audio", subtype: bytes = b"mpeg", name: bytes = b"a.mp3", octets: int = 100
) -> tuple[Any, ...]:
    return (kind, subtype, (b"name", name), None, None, b"base64", octets, None, (b"attachment", (b"filename", name)))


TEXT = (b"text", b"plain", (b"charset", b"utf-8"), None, None, b"7bit", 10, 1, None, None, None)


def numbers(structure: Any, pattern: str = "*") -> list[str]:
    return [part.number for part in audio_parts(structure, pattern)]


def test_parts_are_numbered_as_the_server_numbers_them() -> None:
    assert numbers(leaf()) == ["1"]
    assert numbers((TEXT, leaf(), b"mixed")) == ["2"]
    assert numbers(([TEXT, ([TEXT, leaf()], b"related"), leaf()], b"mixed")) == ["2.2", "3"]
    forwarded = (b"message", b"rfc822", None, None, None, b"7bit", 900, ("envelope",), ([TEXT, leaf()], b"mixed"), 20)
    assert numbers(([TEXT, forwarded], b"mixed")) == ["2.2"]
    single = (b"message", b"rfc822", None, None, None, b"7bit", 900, ("envelope",), leaf(), 20)
    assert numbers(([TEXT, single], b"mixed")) == ["2.1"]


@pytest.mark.parametrize(
    ("part", "taken"),
    [
        (leaf(b"audio", b"wav", b"anything"), True),
        (leaf(b"application", b"octet-stream", b"a.MP3"), True),
        (leaf(b"application", b"octet-stream", b"2025.09.15__14-40-02__79161234567__74951234567"), True),
        (leaf(b"text", b"plain", b"2025.09.15__14-40-02__79161234567__74951234567"), False),
        (leaf(b"video", b"mp4", b"a.m4a"), True),
        (leaf(b"image", b"png", b"a.mp3"), False),
        (leaf(b"application", b"pdf", b"a.pdf"), False),
    ],
)
def test_what_counts_as_audio(part: tuple[Any, ...], taken: bool) -> None:
    assert bool(audio_parts(part, "*")) == taken


def test_the_pattern_is_of_the_name_and_case_does_not_count() -> None:
    both = ([leaf(name=b"Call-1.MP3"), leaf(name=b"music.mp3")], b"mixed")
    assert numbers(both, "call-?.mp3") == ["1"]


def test_hostile_structures_end() -> None:
    deep: Any = leaf()
    for _ in range(200):
        deep = ([deep], b"mixed")
    assert numbers(deep) == []
    shallow: Any = leaf()
    for _ in range(DEEPEST):
        shallow = ([shallow], b"mixed")
    assert len(numbers(shallow)) == 1
    assert len(numbers(([leaf()] * 1000, b"mixed"))) == MOST_PARTS
    for nonsense in (None, (), b"audio", (b"audio",), (1, 2, 3, 4, 5, 6, 7), ([None], b"mixed")):
        with pytest.raises(ValueError, match="no"):
            audio_parts(nonsense, "*")


_atoms = st.none() | st.binary(max_size=8) | st.integers(0, 9) | st.just(b"audio")


@given(
    st.recursive(
        _atoms, lambda inner: st.lists(inner, max_size=9).map(tuple) | st.lists(inner, max_size=4), max_leaves=30
    )
)
def test_any_structure_is_read_or_refused(structure: Any) -> None:
    with contextlib.suppress(
        ValueError, TypeError, AttributeError, LookupError
    ):  # what a visit takes for a bad message
        message_of(1, {b"BODYSTRUCTURE": structure}, "*")


# ---------------------------------------------------------------- messages


def message(**more: Any) -> Message:
    part = Part(number="2", name="a.mp3", content_type="audio/mpeg", encoding="base64", octets=100)
    values = {"uid": 1, "message_id": "<1@x>", "subject": "Запись", "sender": "Mango <auto@mangotele.com>"}
    return Message(**{**values, "received_at": None, "size": 500, "parts": [part], **more})


def test_a_fingerprint_is_the_same_under_every_number_and_another_for_another_message() -> None:
    assert message(uid=1).fingerprint == message(uid=99).fingerprint
    assert message(message_id=None).fingerprint is None
    others = {message(**one).fingerprint for one in ({}, {"size": 1}, {"message_id": "<2@x>"}, {"parts": []})}
    assert len(others) == 4


def test_rules_without_words_take_everything() -> None:
    assert fits(message(), Rules())
    assert fits(message(), Rules(senders=["MANGOTELE.com", "x@y"], subjects=["ЗАПИСЬ"]))
    assert not fits(message(), Rules(senders=["mango-office.ru"]))
    assert not fits(message(), Rules(senders=["mangotele.com"], subjects=["звонок"]))


# ---------------------------------------------------------------- transfer encodings


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(whole) + 1) for place in places)
    return [whole[start:end] for start, end in zip([0, *at], [*at, len(whole)], strict=True)]


_places = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.binary(max_size=2000), st.integers(4, 100), st.sampled_from([b"\r\n", b"\n", b" \r\n", b""]), _places)
def test_base64_in_any_lines_and_any_pieces(audio: bytes, width: int, end: bytes, places: list[int]) -> None:
    letters = base64.b64encode(audio)
    lines = end.join(letters[at : at + width] for at in range(0, len(letters), width)) + end
    assert b"".join(decoded(cut(lines, places), "BASE64 ")) == audio
    unpadded = lines.replace(b"=", b"")
    assert b"".join(decoded(cut(unpadded, places), "base64")) == audio, "as some senders leave it"
    assert b"".join(decoded(cut(letters + b"\r\n-- \r\nfooter of a list\r\n", places), "base64")).startswith(audio)


@given(st.binary(max_size=2000), _places)
def test_quoted_printable_in_any_pieces(audio: bytes, places: list[int]) -> None:
    text = quopri.encodestring(audio)
    assert b"".join(decoded(cut(text, places), "quoted-printable")) == quopri.decodestring(text)


@given(st.binary(max_size=500), _places, st.sampled_from(["base64", "quoted-printable", "8bit", "binary", "7bit", ""]))
def test_no_bytes_are_too_bad_to_be_decoded(raw: bytes, places: list[int], encoding: str) -> None:
    pieces = cut(raw, places)
    assert b"".join(decoded(pieces, encoding)) == b"".join(decoded([raw], encoding)), "however they are cut"


def test_an_encoding_nobody_knows() -> None:
    with pytest.raises(ValueError, match="x-uuencode"):
        decoded([b""], "x-uuencode")

"""Files: what a name and the first bytes say."""

import re
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.uploads.parts import MIB, PARTS, SMALLEST_PART, Promise, plan
from domain.files import attachment, clean_name, content_type_of, decode_text, kind_of, name_from, stored_name

ID = UUID("01a1fe6b-8b49-7025-9cc3-b3051ae9871a")
RUSSIAN = "отчёт за июнь.zip"


def sent(name: bytes) -> str:
    """A Content-Disposition as it stands in the parsed part headers: every byte one character."""
    return (b'form-data; name="file"; filename="' + name + b'"').decode("latin-1")


# ---------------------------------------------------------------- names on the way in


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"plain.txt", "plain.txt"),
        (RUSSIAN.encode(), RUSSIAN),
        (RUSSIAN.encode().decode("latin-1").encode(), RUSSIAN),  # UTF-8 read as latin-1 and encoded once more
        ("снимок “1” €.zip".encode().decode("latin-1").encode(), "снимок “1” €.zip"),
        (RUSSIAN.encode("cp1251"), RUSSIAN),
        ("résumé.pdf".encode("latin-1"), "r\ufffdsum\ufffd.pdf"),  # as windows-1251 it would be "rйsumй"
        ("résumé.pdf".encode(), "résumé.pdf"),
        ("й.txt".encode(), "й.txt"),  # decomposed, as macOS sends it
        (b"C:\\Users\\me\\scan.dcm", "scan.dcm"),
        (b"../../etc/passwd", "passwd"),
        (b"/", ""),
        (b"..", ""),
        (b"", ""),
        (b"a\x00b\x1b[31m\r\n.txt", "ab[31m.txt"),
        ("exe\u202egpj.txt".encode(), "exegpj.txt"),
        (b"a%22b.txt", 'a"b.txt'),
        (b'a\\"b.txt', 'a"b.txt'),
        (b"100%.txt", "100%.txt"),
        (b"\xff\xfe\x98", "\ufffd\ufffd\ufffd"),
    ],
)
def test_a_name_survives_whatever_the_client_encoded_it_with(raw: bytes, name: str) -> None:
    assert name_from(sent(raw)) == name


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename=plain.txt; filename*=UTF-8''%D0%BE%D1%82.txt", "от.txt"),
        ("attachment; filename*=utf-8'ru'%D0%BE%D1%82.txt; filename=plain.txt", "от.txt"),
        ("attachment; filename*=koi8-r''%CF%D4.zip", "от.zip"),
        ("attachment; filename*=no-such-charset''%D0%BE.zip", "о.zip"),
        ("attachment; filename*=UTF-8''..%2F..%2Fx", "x"),
        ("attachment; filename*=broken", "broken"),
        ("attachment; FileName = unquoted name.txt ; size=3", "unquoted name.txt"),
        ('form-data; name="a; filename=trap"', None),
        ("form-data; name=x", None),
        ("", None),
    ],
)
def test_the_header_is_read_as_rfc_6266_and_8187_say(disposition: str, name: str | None) -> None:
    assert name_from(disposition) == name


@given(st.binary(max_size=400))
def test_no_bytes_make_a_name_fail_or_unsafe(raw: bytes) -> None:
    name = clean_name(decode_text(raw))
    assert len(name) <= 255
    assert not re.search(r"[/\\\x00-\x1f\x7f-\x9f]", name)
    assert name not in {".", ".."}
    name.encode()


@given(st.text(max_size=400))
def test_no_header_makes_the_reading_fail(text: str) -> None:
    name_from("form-data; filename=" + text.encode().decode("latin-1"))
    name_from("form-data; filename*=" + text.encode().decode("latin-1"))


def test_a_long_name_keeps_its_extension() -> None:
    assert clean_name("я" * 300 + ".zip") == "я" * 251 + ".zip"
    assert len(clean_name("x." + "y" * 300)) == 255


# ---------------------------------------------------------------- names on the way out


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_a_name_comes_out_as_it_went_in(text: str) -> None:
    header = attachment(text)
    assert header.isascii()
    assert header.isprintable()
    match = re.fullmatch(r"attachment; filename=\"([^\"\\]*)\"; filename\*=UTF-8''(\S*)", header)
    assert match
    assert unquote(match[2]) == text
    cleaned = clean_name(text)
    assert name_from(attachment(cleaned)) == cleaned


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("scan.DCM", ".dcm"),
        ("a.tar.gz", ".gz"),
        ("отчёт.zip", ".zip"),
        ("no extension", ""),
        (".bashrc", ""),
        ("x.ж", ""),
        ("x.verylongextension", ""),
        ("x.a b", ""),
        ("x.php\n", ""),
    ],
)
def test_the_stored_name_is_the_id_with_a_harmless_extension(name: str, extension: str) -> None:
    assert stored_name(ID, name) == f"{ID}{extension}"


# ---------------------------------------------------------------- what the content says


def test_an_archive_is_known_by_its_content() -> None:
    assert kind_of(b"PK\x03\x04 and so on") == "zip"
    assert kind_of(b"PK\x05\x06" + bytes(18)) == "zip"  # an archive without entries
    assert kind_of(b"PK00PK\x03\x04") == kind_of(b"PK\x07\x08PK\x03\x04") == "zip"  # one volume of a span
    assert kind_of(b"PK00") == kind_of(b"PK\x07\x08") == "single"
    assert kind_of(b"PK") == kind_of(b"") == kind_of(b"not PK\x03\x04") == "single"


@pytest.mark.parametrize(
    ("head", "declared", "name", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "text/html", "x.html", "image/png"),
        (b"a,b\n1,2\n", "text/csv; charset=utf-8", "x", "text/csv"),
        (b"a,b\n1,2\n", None, "x.csv", "text/csv"),
        (b"??", "application/octet-stream", "x.json", "application/json"),
        (b"??", "nonsense\r\nX: y", "x", "application/octet-stream"),
        (b"", None, "", "application/octet-stream"),
    ],
)
def test_the_content_decides_the_type_before_the_client_does(
    head: bytes, declared: str | None, name: str, expected: str
) -> None:
    assert content_type_of(head, declared, name) == expected


# ---------------------------------------------------------------- parts


@given(st.integers(0, 5 * 1024**3), st.integers(SMALLEST_PART, 64 * MIB), st.booleans())
def test_parts_are_what_s3_takes_and_what_is_certain(least: int, part: int, exact: bool) -> None:
    sizes = plan(Promise(least, least if exact else least + 128 * 1024), part)
    assert sum(sizes) <= least
    assert len(sizes) < PARTS
    assert least - sum(sizes) < (1 if exact else SMALLEST_PART)  # what is held back is small
    assert all(size >= SMALLEST_PART for size in (sizes[:-1] if exact else sizes))

"""What the ZIP reader promises: it lists ordinary archives, reads little, and refuses the rest by name."""

import io
import struct
import time
import zipfile
import zlib
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.archives import Entry, Limits, Listing, check_local_headers, inspect, is_zip_name, looks_like_zip
from domain.errors import archives as errors
from domain.errors.neighbours import StorageUnavailable
from tests.unit.archive_corpus import (
    END,
    LOCAL,
    U16,
    U32,
    Counted,
    Member,
    Sparse,
    archive,
    deflated,
    described,
    field_of,
    quoted_overlap,
    unicode_field,
    zip64_field,
)


def listed(data: bytes, limits: Limits | None = None) -> Listing:
    return inspect(Counted(data), len(data), limits or Limits())


def words(listing: Listing) -> set[str]:
    return {warning.partition(":")[0] for warning in listing.summary.warnings}


def refused(data: bytes, limits: Limits | None = None) -> errors.ArchiveRefused:
    with pytest.raises(errors.ArchiveRefused) as caught:
        listed(data, limits)
    assert "{" not in str(caught.value)
    assert caught.value.message("ru") != str(caught.value)
    return caught.value


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as made:
        for name, content in files.items():
            made.writestr(zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10)), content, method)
        made.comment = comment
    return target.getvalue()


# ---------------------------------------------------------------- ordinary archives


def test_an_ordinary_archive_is_listed_as_the_standard_library_lists_it() -> None:
    data = zipped({"docs/": b"", "docs/report.csv": b"a,b\n" * 500, "Фото.JPG": b"\xff\xd8"}, comment="Итог".encode())
    listing = listed(data)
    for ours, theirs in zip(listing.entries, zipfile.ZipFile(io.BytesIO(data)).infolist(), strict=True):
        assert ours.name == theirs.filename
        assert (ours.size, ours.compressed_size, ours.crc32) == (theirs.file_size, theirs.compress_size, theirs.CRC)
        assert ours.header_offset == theirs.header_offset
        assert ours.is_folder == theirs.is_dir()
        assert ours.modified_at == datetime(*theirs.date_time)
    assert [entry.content_type for entry in listing.entries] == [None, "text/csv", "image/jpeg"]
    assert [entry.index for entry in listing.entries] == [0, 1, 2]
    summary = listing.summary
    assert (summary.entries, summary.files, summary.folders, summary.size) == (3, 2, 1, 2002)
    assert summary.ratio == round(2002 / summary.compressed_size, 2)
    assert (summary.comment, summary.zip64, summary.warnings) == ("Итог", False, [])


@pytest.mark.parametrize(
    ("method", "name"),
    [(0, "stored"), (8, "deflated"), (12, "bzip2"), (14, "lzma")],
)
def test_every_method_the_unpacking_side_reads_is_named(method: int, name: str) -> None:
    assert listed(zipped({"a.txt": b"text " * 50}, method)).entries[0].method == name


def test_an_empty_archive_has_no_entries() -> None:
    assert listed(zipped({})).summary.entries == 0


def test_a_listing_is_plain_data_without_a_ratio_when_there_is_nothing_to_unpack() -> None:
    assert listed(zipped({"empty": b""})).summary.ratio == 0.0


def test_an_archive_written_to_a_pipe_is_ordinary() -> None:
    class Pipe(io.RawIOBase):
        kept = b""

        def writable(self) -> bool:
            return True

        def write(self, part: bytes) -> int:  # type: ignore[override]
            self.kept += bytes(part)
            return len(part)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.txt", b"a" * 1000)
        made.writestr("b.txt", b"")
    listing = listed(pipe.kept)
    assert listing.entries[0].flags & 8
    assert listing.summary.warnings == []


@pytest.mark.parametrize("form", ["<4sIII", "<III", "<4sIQQ", "<IQQ"])
def test_every_form_of_data_descriptor_is_ordinary(form: str) -> None:
    data = archive(described(deflated(b"a", b"x" * 99), form), Member(name=b"b"))
    assert words(listed(data)) == set()


def test_a_moment_that_does_not_exist_is_left_out() -> None:
    assert listed(archive(Member(stamp=0))).entries[0].modified_at is None
    assert listed(archive(Member(stamp=0xFFFFFFFF))).entries[0].modified_at is None


def test_a_self_extracting_archive_is_listed_with_a_warning() -> None:
    data = zipped({"a": b"1", "b": b"2"})
    for whole in (b"MZ" + bytes(500) + data, archive(Member(), prefix=b"#!/bin/sh\n" * 20)):
        listing = listed(whole)
        assert words(listing) == {"prefix"}
        entry = listing.entries[0]
        assert whole.startswith(LOCAL, entry.header_offset)


def test_a_stub_whose_offsets_were_adjusted_is_listed_with_a_warning() -> None:
    target = io.BytesIO(b"MZ" + bytes(500))
    target.seek(0, io.SEEK_END)
    with zipfile.ZipFile(target, "a") as made:
        made.writestr("a", b"1")
    assert words(listed(target.getvalue())) == {"prefix"}


def test_a_span_marker_of_a_single_volume_is_ordinary() -> None:
    counted = archive(Member(offset=4), prefix=b"PK00", directory_offset=4 + len(Member().local()))
    assert words(listed(counted)) == set()
    assert words(listed(archive(Member(), prefix=b"PK00"))) == {"prefix"}  # which 7-Zip does not open


def test_members_in_another_order_than_the_directory_are_ordinary() -> None:
    first, second = Member(name=b"1"), Member(name=b"2")
    body = len(first.local())
    data = archive(replace(second, in_body=False, offset=body), first, replace(second, in_directory=False))
    assert [entry.name for entry in listed(data).entries] == ["2", "1"]


def test_an_archive_stored_in_an_archive_is_a_member_like_any_other() -> None:
    inner = zipped({"inner.txt": b"1"})
    listing = listed(zipped({"inner.zip": inner, "z": b""}, zipfile.ZIP_STORED))
    assert [entry.name for entry in listing.entries] == ["inner.zip", "z"]
    assert words(listing) == set()


# ---------------------------------------------------------------- reads


def test_a_small_archive_takes_one_read() -> None:
    reader = Counted(zipped({"a": b"1"}))
    inspect(reader, len(reader.data))
    assert reader.reads == [(0, len(reader.data))]


def test_a_large_archive_takes_two_reads_and_never_its_members() -> None:
    data = archive(*(Member(name=b"%06d" % i, data=bytes(400)) for i in range(3000)))
    reader = Counted(data)
    listing = inspect(reader, len(data))
    assert len(listing.entries) == 3000
    assert len(reader.reads) == 2
    assert reader.reads[0] == (len(data) - 131072, 131072)
    assert min(start for start, _ in reader.reads) == listing.summary.directory_offset


def test_a_large_self_extracting_archive_takes_three_reads() -> None:
    data = archive(*(Member(name=b"%06d" % i, data=bytes(400)) for i in range(3000)), prefix=b"MZ" + bytes(9999))
    reader = Counted(data)
    assert words(inspect(reader, len(data))) == {"prefix"}
    assert len(reader.reads) == 3


def test_a_deep_inspection_can_check_the_local_headers_that_were_not_read() -> None:
    members = [Member(name=b"%06d" % i, data=bytes(400)) for i in range(3000)]
    members[5].local_name = b"000_05"
    data = archive(*members)
    listing = listed(data)
    with pytest.raises(errors.ArchiveInconsistent, match="000005"):
        check_local_headers(listing.entries, lambda start, n: data[start : start + n], listing.summary.directory_offset)


def test_a_storage_that_gives_less_than_it_promised_is_a_truncated_archive() -> None:
    data = zipped({"a": b"1"})
    with pytest.raises(errors.ArchiveTruncated, match=r"\d+ bytes were asked for"):
        inspect(lambda start, length: data[start : start + length][:-1], len(data))


def test_what_the_storage_raises_passes_through() -> None:
    def read(start: int, length: int) -> bytes:
        raise StorageUnavailable

    with pytest.raises(StorageUnavailable):
        inspect(read, 1000)


# ---------------------------------------------------------------- ZIP64


def test_an_archive_of_70000_entries_is_listed() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for index in range(70_000):
            made.writestr(zipfile.ZipInfo(f"{index}"), b"")
    listing = listed(target.getvalue())
    assert (listing.summary.entries, listing.summary.zip64) == (70_000, True)


@pytest.mark.parametrize("sentinels", [True, False])
@pytest.mark.parametrize("more", [b"", b"extensible data"])
def test_zip64_is_ordinary_where_it_was_not_needed(sentinels: bool, more: bytes) -> None:
    listing = listed(archive(Member(), zip64=True, sentinels=sentinels, zip64_more=more))
    assert listing.summary.zip64
    assert words(listing) == set()


def test_zip64_survives_a_prefix() -> None:
    assert words(listed(archive(Member(), zip64=True, prefix=b"MZ" + bytes(300)))) == {"prefix"}


@pytest.mark.parametrize("size", [U32 - 1, U32, U32 + 1, 5 * 2**32])
@pytest.mark.parametrize("order", [1, -1])
def test_sizes_and_offsets_around_4_gib_are_read(size: int, order: int) -> None:
    wide = zip64_field(size, size) if size >= U32 else b""
    big = Member(name=b"big", data=b"", size=min(size, U32), packed=min(size, U32), crc=1, extra=wide, local_extra=wide)
    after = len(big.local()) + size
    small = Member(name=b"small", offset=min(after, U32), extra=zip64_field(after) if after >= U32 else b"")
    start = after + len(small.local())
    directory = b"".join([big.central(0), small.central(after)][::order])
    ends = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(directory), start)
    ends += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + len(directory), 1)
    ends += struct.pack("<4sHHHHIIH", END, 0, 0, 2, 2, len(directory), U32, 0)
    read = Sparse({0: big.local(), after: small.local(), start: directory + ends})
    listing = inspect(read, read.size)
    found = {entry.name: (entry.size, entry.compressed_size, entry.header_offset) for entry in listing.entries}
    assert found == {"big": (size, size, 0), "small": (5, 5, after)}
    assert words(listing) == set()
    assert check_local_headers(listing.entries, read, start) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (archive(Member(size=U32, packed=U32)), "sizes of 'a.txt' are missing"),
        (archive(Member(size=U32, packed=U32, extra=zip64_field(5))), "sizes of 'a.txt' are missing"),
        (archive(Member(size=U32, extra=zip64_field(5) + zip64_field(6))), "comes twice"),
        (archive(Member(extra=zip64_field(6, 6))), "other sizes in its ZIP64 field"),
        (archive(Member(), zip64=True, sentinels=False, zip64_fields={"count": 2}), "contradict each other"),
        (archive(Member(), zip64=True, locator={"at": 7}), "not where its locator says"),
        (archive(Member(), zip64=True, locator={"at": 7}, zip64_more=bytes(20)), "not where its locator says"),
        (archive(Member(), zip64=True, zip64_fields={"length": 45}), "wrong length"),
    ],
)
def test_zip64_that_contradicts_the_rest_is_inconsistent(data: bytes, reason: str) -> None:
    error = refused(data)
    assert isinstance(error, errors.ArchiveInconsistent)
    assert reason in str(error)


# ---------------------------------------------------------------- names


NAMES = ["Отчёт за март.xlsx", "Договор поставки/Приложение 1.docx", "ЗВОНОК.wav", "письмо клиенту.txt"]


@pytest.mark.parametrize("host", [0, 3, 11])
@pytest.mark.parametrize("page", ["cp866", "cp1251", "utf-8"])
def test_russian_names_without_the_utf8_flag_are_read(page: str, host: int) -> None:
    entries = listed(archive(*(Member(name=name.encode(page), host=host) for name in NAMES))).entries
    assert [entry.name for entry in entries] == NAMES
    assert [entry.raw_name for entry in entries] == [name.encode(page) for name in NAMES]
    assert entries[0].content_type == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.mark.parametrize("page", ["cp866", "cp1251"])
@pytest.mark.parametrize("name", ["Привет.txt", "съёмка.mp4", "ИТОГО.csv", "Фото №5.jpg"])
def test_one_russian_name_is_enough_to_tell_its_code_page(page: str, name: str) -> None:
    assert listed(archive(Member(name=name.encode(page), host=0))).entries[0].name == name


def test_western_names_are_read_as_the_format_says() -> None:
    for name in ("café crème.txt", "Lösung für Jürgen.doc", "El Niño.pdf"):
        assert listed(archive(Member(name=name.encode("cp437"), host=0))).entries[0].name == name


def test_the_unicode_path_field_wins_over_the_code_page() -> None:
    raw = "Отчёт.txt".encode("cp866")
    assert listed(archive(Member(name=raw, extra=unicode_field(raw, "Отчёт.txt")))).entries[0].name == "Отчёт.txt"
    question = b"?????.txt"
    assert listed(archive(Member(name=question, extra=unicode_field(question, "Отчёт.txt")))).entries[0].name[0] == "О"


def test_a_unicode_path_field_about_another_name_is_ignored() -> None:
    assert listed(archive(Member(extra=unicode_field(b"b.txt", "b.txt")))).entries[0].name == "a.txt"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(archive(Member(name=b"\xff\xfe.txt", flags=0x800)), id="marked as UTF-8 and is not"),
        pytest.param(archive(Member(extra=unicode_field(b"a.txt", "b/a.txt"))), id="Unicode name in another folder"),
        pytest.param(archive(Member(extra=unicode_field(b"a.txt", "a.exe"))), id="Unicode name of another type"),
        pytest.param(archive(Member(flags=0x800, extra=unicode_field(b"a.txt", "b.txt"))), id="two Unicode names"),
        pytest.param(
            archive(Member(extra=unicode_field(b"a.txt", "b.txt")), Member(extra=unicode_field(b"a.txt", "c.txt"))),
            id="one plain name for two Unicode ones",
        ),
        pytest.param(
            archive(Member(local_extra=unicode_field(b"a.txt", "b.txt"))), id="Unicode name only in the local"
        ),
    ],
)
def test_a_name_that_depends_on_the_reader_is_inconsistent(data: bytes) -> None:
    assert isinstance(refused(data), errors.ArchiveInconsistent)


UNSAFE = [
    b"/etc/passwd",
    b"//server/share",
    b"\\\\server\\share",
    b"../a",
    b"a/../../b",
    b"a/..",
    b"..",
    b"..\\a",
    b"a\\..\\..\\b",
    b"a/.. /b",
    b"a/.../b",
    b"C:/Windows/a",
    b"c:a",
    b"a\x00.txt",
    b"a\nb",
    b"\x1b[2J",
    b"a\x7f",
    "a\u2028b".encode(),
    "a\x85b".encode(),
    b"",
    b".",
    b"a/.",
    b"n" * 1025,
    b"n" * 256,
    b"a/" * 101 + b"a",
]


@pytest.mark.parametrize("name", UNSAFE, ids=lambda name: repr(name[:20]))
def test_an_unsafe_name_is_refused_and_shown_without_controls(name: bytes) -> None:
    error = refused(archive(Member(name=b"ok.txt"), Member(name=name)))
    assert isinstance(error, errors.ArchiveUnsafeName)
    assert error.details["entry"].isprintable()
    assert len(error.details["entry"]) <= 120


def test_a_name_over_the_limit_says_so() -> None:
    error = refused(archive(Member(name=(b"n" * 200 + b"/") * 6 + b"n")))
    assert isinstance(error, errors.ArchiveUnsafeName)
    assert "longer than 1024 bytes" in str(error)


def test_an_unsafe_name_behind_a_unicode_path_field_is_refused() -> None:
    raw = b"../a.txt"
    assert isinstance(refused(archive(Member(name=raw, extra=unicode_field(raw, "b/a.txt")))), errors.ArchiveUnsafeName)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("CON", "reserved_name"),
        ("docs/nul.txt", "reserved_name"),
        ("aux /a", "reserved_name"),
        ("folder\\file.txt", "backslash"),
        ("12:30.txt", "colon"),
        ("./a", "untidy_path"),
        ("a//b", "untidy_path"),
        ("a.", "untidy_path"),
        ("\u202egpj.exe", "direction"),
    ],
)
def test_an_awkward_name_is_a_warning(name: str, word: str) -> None:
    listing = listed(archive(Member(name=b"ok.txt"), Member(name=name.encode(), flags=0x800)))
    assert word in words(listing)
    assert listing.entries[1].name == name


@pytest.mark.parametrize(
    "name", ["...a", "a..b", ".git/x", "консоль/con.d.txt/a", "a b/c d.txt", "👩‍💻.png", "no\u202fam"]
)
def test_an_unusual_but_safe_name_is_listed(name: str) -> None:
    assert words(listed(archive(Member(name=name.encode(), flags=0x800)))) <= {"untidy_path", "reserved_name"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.txt", "a.txt"),
        ("a.txt", "A.TXT"),
        ("Отчёт", "ОТЧЁТ"),
        ("straße", "STRASSE"),
        ("\u0439", "\u0438\u0306"),
        ("a/b", "a//b"),
        ("a/b", "./a/./b"),
        ("a/b", "a\\b"),
        ("a", "a."),
        ("a", "a/"),
        ("a", "a/b"),
        ("a", "a/b/c/d"),
        ("A", "a/b/c/d"),
    ],
)
def test_two_names_that_are_one_path_somewhere_are_inconsistent(first: str, second: str) -> None:
    def member(name: str) -> Member:
        return Member(name=name.encode(), data=b"" if name.endswith("/") else b"1")

    for pair in ((first, second), (second, first)):
        data = archive(Member(name=b"x"), *map(member, pair), Member(name=b"y/z"))
        assert isinstance(refused(data), errors.ArchiveInconsistent)


def test_a_folder_that_comes_twice_is_a_warning() -> None:
    assert words(listed(archive(Member(name=b"a/", data=b""), Member(name=b"A/", data=b"")))) == {"repeated_folder"}


# ---------------------------------------------------------------- what is not a file or cannot be read


@pytest.mark.parametrize("kind", [0o120000, 0o020000, 0o060000, 0o010000, 0o140000, 0o170000])
@pytest.mark.parametrize("host", [0, 3])
def test_links_and_devices_are_unsafe_entries(kind: int, host: int) -> None:
    assert isinstance(refused(archive(Member(attributes=kind << 16, host=host))), errors.ArchiveUnsafeEntry)


def test_a_folder_without_a_known_mode_is_ordinary() -> None:
    assert words(listed(archive(Member(name=b"META-INF/", data=b"", attributes=0xFFFF << 16)))) == set()
    assert isinstance(refused(archive(Member(attributes=0xFFFF << 16))), errors.ArchiveUnsafeEntry)


@pytest.mark.parametrize("flag", [0x0001, 0x0041, 0x2000])
def test_an_encrypted_entry_is_named(flag: int) -> None:
    error = refused(archive(Member(), Member(name=b"secret.txt", flags=flag)))
    assert isinstance(error, errors.ArchiveEncrypted)
    assert error.details["entry"] == "secret.txt"


def test_aes_is_encryption_even_without_the_flag() -> None:
    assert isinstance(refused(archive(Member(method=99))), errors.ArchiveEncrypted)


@pytest.mark.parametrize("method", [1, 6, 9, 93, 95, 98, 7777])
def test_a_method_nothing_here_can_unpack_is_unsupported(method: int) -> None:
    assert isinstance(refused(archive(Member(method=method))), errors.ArchiveUnsupported)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(archive(Member(), disk=1), id="last disk"),
        pytest.param(archive(Member(), directory_disk=1), id="disk of the directory"),
        pytest.param(archive(Member(disk=1)), id="disk of a member"),
        pytest.param(archive(Member(disk=U16, extra=field_of(1, struct.pack("<I", 3)))), id="disk in ZIP64"),
        pytest.param(archive(Member(), zip64=True, locator={"disks": 2}), id="disks in the locator"),
        pytest.param(b"PK\x07\x08" + bytes(500), id="first volume"),
        pytest.param(archive(Member(), zip64=True, zip64_fields={"needed": 62}, zip64_more=bytes(28)), id="version 2"),
    ],
)
def test_volumes_and_hidden_directories_are_unsupported(data: bytes) -> None:
    assert isinstance(refused(data), errors.ArchiveUnsupported)


# ---------------------------------------------------------------- bombs


def test_members_that_overlap_are_a_bomb() -> None:
    assert isinstance(refused(quoted_overlap()), errors.ArchiveBomb)
    one = Member(name=b"a")
    assert isinstance(refused(archive(one, replace(one, name=b"b", in_body=False, offset=0))), errors.ArchiveBomb)


def test_the_overlap_bomb_of_the_corpus_is_one_other_readers_unpack() -> None:
    bomb = quoted_overlap(count=5, kernel=1000)
    named, extra = struct.unpack_from("<HH", bomb, 26)
    first = zlib.decompressobj(-15).decompress(bomb[30 + named + extra :])
    assert len(first) == 1000 + 4 * 33
    assert zlib.crc32(first) == struct.unpack_from("<I", bomb, 14)[0]


def test_the_limits_are_inclusive_and_each_is_kept() -> None:
    data = zipped({"a": bytes(5000), "b": b"1"})
    ratio = -(-5000 // listed(data).entries[0].compressed_size)
    fitting = Limits(max_entries=2, max_unpacked_bytes=5001, max_ratio=ratio, ratio_floor_bytes=100, max_name_bytes=1)
    assert listed(data, fitting).summary.size == 5001
    for tighter in ({"max_entries": 1}, {"max_unpacked_bytes": 5000}, {"max_ratio": 10}, {"max_directory_bytes": 90}):
        kept = {name: getattr(fitting, name) for name in fitting.__struct_fields__} | tighter
        assert isinstance(refused(data, Limits(**kept)), errors.ArchiveBomb)


def test_a_prefix_counts_as_directory_because_it_is_read_with_it() -> None:
    data = archive(Member(), prefix=bytes(300))
    assert isinstance(refused(data, Limits(max_directory_bytes=200)), errors.ArchiveUnsupported)


def test_a_tiny_text_is_never_a_ratio_bomb() -> None:
    assert listed(zipped({"zeros.txt": bytes(10 * 1024**2)})).summary.ratio > 900


def test_a_small_bomb_behind_a_large_file_is_found_by_its_own_ratio() -> None:
    large = Member(name=b"large", data=b"", size=10**9, packed=10**9, in_body=False)
    bomb = Member(name=b"bomb", method=8, data=b"x", size=10**9, packed=10**6, in_body=False)
    error = refused(archive(large, bomb))
    assert isinstance(error, errors.ArchiveBomb)
    assert "'bomb' unpacks from" in str(error)


def test_many_small_bombs_are_found_together() -> None:
    data = archive(*(Member(name=b"%d" % i, method=8, data=bytes(9), size=9000) for i in range(2000)))
    assert isinstance(refused(data), errors.ArchiveBomb)


# ---------------------------------------------------------------- contradictions


DEFLATED = deflated(b"d.txt", b"text " * 100)

CONTRADICTIONS = {
    "local name": Member(local_name=b"b.txt"),
    "longer local name": Member(local_name=b"a.txt.exe"),
    "local method": Member(local_method=8),
    "local crc": Member(local_crc=1),
    "local size": Member(local_size=6),
    "local packed size": Member(local_packed=6),
    "local encryption": Member(local_flags=1),
    "local UTF-8 flag": Member(name="ы.txt".encode(), flags=0x800, local_flags=0),
    "no local header": Member(local_signature=b"PK\x03\x05"),
    "local extra field that moves the data": Member(data=b"", size=5, packed=5, local_extra=bytes(8)),
    "a Unicode name that is not UTF-8": Member(extra=unicode_field(b"a.txt", "\udcff")),
    "descriptor": described(DEFLATED, data=(1, 2, 3)),
    "no descriptor": replace(described(DEFLATED), descriptor=b""),
    "described but with other sizes": replace(described(DEFLATED), local_size=7),
    "stored with two sizes": Member(size=6),
    "deflated from nothing": Member(data=b"", method=8, size=7),
    "sizes no compressor makes": Member(data=bytes(9000), method=8, size=1),
    "folder with content": Member(name=b"a/"),
    "folder by attributes with content": Member(attributes=0o040755 << 16 | 0x10),
    "hidden member": Member(gap=Member(name=b"hidden").local()),
    "hidden member further on": Member(gap=b"..." + Member(name=b"hidden").local()),
    "offset into nothing": Member(offset=3),
    "offset into the directory": Member(offset=60),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_an_archive_that_contradicts_itself_is_inconsistent(name: str) -> None:
    error = refused(archive(CONTRADICTIONS[name]))
    assert isinstance(error, errors.ArchiveInconsistent), error


ENDS = {
    "data after the end": archive(Member(), after_end=b"\n"),
    "an archive after the archive": archive(Member(name=b"1")) + archive(Member(name=b"2")),
    "an end within the comment": archive(Member(), comment=b"x" + archive(Member(name=b"other"))),
    "an end within the comment that does not fit": archive(Member(), comment=END + bytes(30)),
    "more entries than there are": archive(Member(), Member(name=b"b"), entries=1),
    "entries in another volume": archive(Member(), entries_here=2),
    "count without directory": archive(Member(), entries=0),
    "count too large for the directory": archive(Member(), entries=2),
    "something after the directory's entries": archive(Member(), after_directory=b"junk", directory_size=55),
    "an empty directory after members": archive(Member(in_directory=False)),
    "first member not in the directory": archive(Member(name=b"hidden", in_directory=False), Member()),
    "a member in the prefix": archive(Member(), prefix=b"MZ..." + Member(name=b"hidden").local()),
    "a directory in front of the directory": archive(
        Member(), prefix=bytes(len(Member().local())) + Member().central(0)
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_archive_with_two_readings_is_inconsistent(name: str) -> None:
    error = refused(ENDS[name])
    assert isinstance(error, errors.ArchiveInconsistent), error


def test_unreferenced_bytes_that_are_no_member_are_a_warning() -> None:
    assert words(listed(archive(Member(gap=b"padding")))) == {"unreferenced"}
    unseen = archive(Member(gap=bytes(70_000)), Member(name=b"b", data=bytes(200_000)))
    assert words(listed(unseen)) == {"unreferenced"}


def test_a_damaged_extra_field_is_a_warning() -> None:
    assert words(listed(archive(Member(extra=b"\x01\x00\xff\xff")))) == {"extra_field"}


def test_a_member_that_reaches_into_the_directory_is_inconsistent_without_seeing_it() -> None:
    data = archive(
        Member(data=b"", size=9, packed=9), Member(name=b"b", data=bytes(200_000), size=200_001, packed=200_001)
    )
    assert "reaches into the directory" in str(
        refused(archive(Member(data=bytes(200_000), size=200_001, packed=200_001)))
    )
    assert isinstance(refused(data), errors.ArchiveBomb)


def test_a_folder_by_its_attributes_only_is_a_folder_with_a_warning() -> None:
    listing = listed(archive(Member(name=b"a", data=b"", attributes=0o040755 << 16 | 0x10)))
    assert listing.entries[0].is_folder
    assert words(listing) == {"folder_mark"}


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "data",
    [
        zipped({"a.txt": b"hello", "папка/b.bin": bytes(300)}, comment=b"a comment"),
        archive(described(DEFLATED), Member(), zip64=True),
    ],
    ids=["plain", "zip64"],
)
def test_an_archive_cut_at_any_byte_is_truncated(data: bytes) -> None:
    assert isinstance(refused(b""), errors.ArchiveNotZip)
    for length in range(1, len(data)):
        assert isinstance(refused(data[:length]), errors.ArchiveTruncated), length


def test_a_cut_archive_is_never_taken_for_the_archive_stored_in_it() -> None:
    data = zipped({"inner.zip": zipped({"inner.txt": b"1"}), "after": b"2"}, zipfile.ZIP_STORED)
    for length in range(1, len(data)):
        assert isinstance(refused(data[:length]), (errors.ArchiveTruncated, errors.ArchiveInconsistent)), length


def test_bytes_lost_from_the_middle_are_noticed() -> None:
    data = zipped({"a": bytes(range(256)), "b": b"2"}, zipfile.ZIP_STORED)
    error = refused(data[:100] + data[101:])
    assert isinstance(error, errors.ArchiveTruncated)
    assert "1 bytes are missing" in str(error)


def test_a_damaged_directory_is_truncated() -> None:
    data = bytearray(zipped({"a": b"1", "b": b"2"}))
    data[data.rindex(b"PK\x01\x02")] ^= 1
    assert isinstance(refused(bytes(data)), errors.ArchiveTruncated)


@pytest.mark.parametrize("entry", [0, 1])
def test_an_entry_that_reaches_over_the_end_of_the_directory_is_damaged(entry: int) -> None:
    data = bytearray(archive(Member(), Member(name=b"b.txt")))
    starts = [at for at in range(len(data)) if data.startswith(b"PK\x01\x02", at)]
    data[starts[entry] + 32] = 200  # the length of its comment
    error = refused(bytes(data))
    assert isinstance(error, errors.ArchiveTruncated)
    assert "in the middle of an entry" in str(error)


@pytest.mark.parametrize("data", [b"", b"\x00" * 5000, b"Rar!\x1a\x07\x00" + bytes(90), b"%PDF-1.7 " * 40, b"PX"])
def test_what_is_no_archive_is_not_a_zip(data: bytes) -> None:
    assert isinstance(refused(data), errors.ArchiveNotZip)


def test_the_head_and_the_name_of_a_zip_are_known() -> None:
    for head in (zipped({"a": b""})[:4], zipped({})[:4], b"PK\x07\x08PK\x03\x04", b"PK00PK\x03\x04"):
        assert looks_like_zip(head)
    for other in (b"", b"PK", b"MZ", b"%PDF", b"PK\x01\x02"):
        assert not looks_like_zip(other)
    assert is_zip_name("Архив.ZIP")
    assert not is_zip_name("archive.zip.txt")


# ---------------------------------------------------------------- fuzz


SEEDS = [
    zipped({"a.txt": b"hello" * 9, "папка/b.csv": b"1,2\n", "c/": b""}, comment=b"comment"),
    archive(described(DEFLATED), Member(name="Отчёт.txt".encode("cp866")), zip64=True),
    archive(Member(size=U32, packed=U32, local_size=5, local_packed=5, extra=zip64_field(5, 5))),
    archive(Member(extra=unicode_field(b"a.txt", "b.txt"), remark=b"remark"), prefix=b"MZ" + bytes(60)),
    quoted_overlap(count=4, kernel=500),
]
SPECIAL = [b"\x00", b"\xff", b"\x01", b"/", b".", b"\xff\xff", b"\xff\xff\xff\xff", b"PK\x01\x02", LOCAL, END]


def test_the_seeds_of_the_fuzz_are_sound() -> None:
    assert [listed(seed).summary.entries for seed in SEEDS[:4]] == [3, 2, 1, 1]


def outcome(data: bytes) -> Listing | errors.ArchiveRefused:
    """The listing or the refusal; anything else that is raised fails the test."""
    try:
        return listed(data)
    except errors.ArchiveRefused as caught:
        refusal = caught
    assert str(refusal)
    assert type(refusal) is not errors.ArchiveRefused
    return refusal


@settings(max_examples=1500, deadline=1000, derandomize=True, database=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 999_999), st.sampled_from(SPECIAL) | st.binary(max_size=3)), max_size=4),
    cut=st.tuples(st.integers(0, 30), st.integers(0, 30)) | st.just((0, 0)),
)
def test_a_changed_archive_is_listed_or_refused_by_name(
    seed: bytes, changes: list[tuple[int, bytes]], cut: tuple[int, int]
) -> None:
    data = bytearray(seed)
    for place, patch in changes:
        at = place % len(data)
        data[at : at + len(patch)] = patch
    result = outcome(bytes(data[cut[0] : len(data) - cut[1]]))
    for entry in result.entries if isinstance(result, Listing) else ():
        assert isinstance(entry, Entry)
        assert ".." not in entry.name.split("/")
        assert not entry.name.startswith(("/", "\\"))
        assert "\x00" not in entry.name
    if isinstance(result, Listing):
        agrees_with_the_standard_library(bytes(data[cut[0] : len(data) - cut[1]]), result)


def agrees_with_the_standard_library(data: bytes, listing: Listing) -> None:
    """What is accepted reads the same elsewhere; zipfile may refuse it (versions, extra fields), not contradict it."""
    try:
        theirs = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        return
    ours = [(entry.header_offset, entry.compressed_size, entry.size, entry.crc32) for entry in listing.entries]
    assert ours == [(entry.header_offset, entry.compress_size, entry.file_size, entry.CRC) for entry in theirs]


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_one_changed_bit_is_listed_or_refused_by_name(seed: int) -> None:
    data = SEEDS[seed]
    for place in range(len(data)):
        for bit in (0, 3, 7):
            outcome(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])


@settings(max_examples=300, deadline=1000, derandomize=True, database=None)
@given(data=st.binary(max_size=200), comment=st.binary(max_size=10))
def test_random_bytes_are_refused_by_name(data: bytes, comment: bytes) -> None:
    assert isinstance(outcome(data), errors.ArchiveRefused)
    size, offset = len(data) // 2, len(data) - len(data) // 2
    end = struct.pack("<4sHHHHIIH", END, 0, 0, size // 46, size // 46, size, offset, len(comment))
    outcome(data + end + comment)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(archive(Member(), comment=(END * 20_000)[:U16]), id="a comment of ends"),
        pytest.param(archive(Member(gap=LOCAL * 30_000)), id="a gap of local headers"),
        pytest.param(
            archive(*(Member(name=b"a/" * 99 + b"%d" % i, in_body=False, data=b"", offset=0) for i in range(3000))),
            id="deep paths",
        ),
        pytest.param(archive(Member(extra=bytes(65532)), Member(name=b"\x80" * 1024)), id="long fields"),
    ],
)
def test_no_archive_takes_long(data: bytes) -> None:
    started = time.process_time()
    outcome(data)
    assert time.process_time() - started < 1

"""At least 200 hostile and odd archives with the verdict each must get. Everything is made here, field by field."""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.unit.archive_corpus import (
    END,
    U16,
    U32,
    Member,
    archive,
    deflated,
    described,
    field_of,
    quoted_overlap,
    unicode_field,
    zip64_field,
)

SEED = 20250914
TEXT = deflated(b"d.txt", b"text " * 100)


@dataclass(frozen=True)
class Case:
    """``code`` is the error's, None for an accepted archive; ``entry`` the name it must tell, None where there is none;
    ``warnings`` are the words an accepted archive comes with."""

    name: str
    data: bytes = field(repr=False)
    code: str | None = None
    entry: str | None = None
    warnings: frozenset[str] = frozenset()


def corpus() -> list[Case]:
    makers = (names, nodes, sizes, meetings, headers, ends, unsupported, truncations, mutations, odd)
    return [case for made in makers for case in made()]


def _refused(name: str, data: bytes, code: str, entry: str | None = None) -> Case:
    return Case(name, data, f"archive_{code}", entry)


UNSAFE = [
    "/etc/passwd", "//server/share", "\\\\server\\share", "\\a", "../a", "a/../../b", "a/..", "..", "..\\a",
    "a\\..\\..\\b", "a/.. /b", "a/.../b", "a/. ./b", "C:/Windows/a", "c:a", "Z:\\a", "a\x00.txt", "a\nb", "\x1b[2J",
    "a\x7f", "a\u2028b", "a\x85b", ".", "a/.", "n" * 256, "n" * 1025, "a/" * 60 + "a",
]  # fmt: skip


def names() -> Iterator[Case]:
    for number, name in enumerate(UNSAFE):
        raw, ok = name.encode(), Member(name=b"ok.txt")
        for place, members in (("alone", ()), ("second", (ok,))):
            data = archive(*members, Member(name=raw, flags=0x800))
            yield _refused(f"unsafe name {number} {place}", data, "unsafe_name", name)
    for name in ("../a.txt", "/a.txt", "a\x00.txt"):
        plain = "b" * name.count("/") + "/a.txt" if "/" in name else "a.txt"
        held = Member(name=plain.encode(), extra=unicode_field(plain.encode(), name))
        yield _refused(f"unsafe Unicode name {name!r}", archive(held), "unsafe_name", name)
        raw = Member(name=name.encode(), extra=unicode_field(name.encode(), plain))
        yield _refused(f"unsafe name behind a Unicode one {name!r}", archive(raw), "unsafe_name", name)
    awkward = {
        "CON": "reserved_name", "docs/nul.txt": "reserved_name", "aux /a": "reserved_name", "LPT1.csv": "reserved_name",
        "folder\\file.txt": "backslash", "12:30.txt": "colon", "./a": "untidy_path", "a//b": "untidy_path",
        "a.": "untidy_path", "a ": "untidy_path", "\u202egpj.exe": "direction", "a\u2066b": "direction",
        "a\ufffe.txt": "noncharacter", "\uffffa": "noncharacter", "b/\ufdd0": "noncharacter",
    }  # fmt: skip
    for name, word in awkward.items():
        words = {word} | ({"untidy_path"} if name == "aux /a" else set())
        yield Case(f"awkward {name!r}", archive(Member(name=name.encode(), flags=0x800)), warnings=frozenset(words))


def nodes() -> Iterator[Case]:
    for kind in (0o120000, 0o020000, 0o060000, 0o010000, 0o140000, 0o170000):
        for host in (0, 3, 19):
            member = Member(name=b"node", attributes=(kind | 0o777) << 16, host=host)
            yield _refused(f"node {kind:o} of host {host}", archive(Member(), member), "unsafe_entry", "node")
    for flag in (0x0001, 0x0041, 0x2000):
        member = Member(name=b"secret.txt", flags=flag)
        yield _refused(f"encrypted {flag:x}", archive(Member(), member), "encrypted", "secret.txt")
    yield _refused("AES without a flag", archive(Member(method=99)), "encrypted", "a.txt")


def sizes() -> Iterator[Case]:
    yield _refused("quoted overlap", quoted_overlap(), "overlap", "001")
    one = Member(name=b"a")
    twice = archive(one, replace(one, name=b"b", in_body=False, offset=0))
    yield _refused("two names for one member", twice, "overlap", "b")
    for packed in (1, 10**4, 10**6):
        bomb = Member(name=b"bomb", method=8, data=b"x" * packed, size=packed * 1000 + 11 * 1024**2)
        yield _refused(f"ratio of {packed}", archive(Member(), bomb), "ratio", "bomb")
    many = archive(*(Member(name=b"%d" % i, method=8, data=bytes(9), size=9000) for i in range(2000)))
    yield _refused("ratio of the whole", many, "ratio")
    huge = Member(data=b"", size=2**40, packed=2**40, in_body=False)
    wide = replace(huge, size=U32, packed=U32, extra=zip64_field(2**40, 2**40))
    yield _refused("a tebibyte", archive(wide), "too_large")
    yield _refused("100,001 entries", archive(Member(), zip64=True, zip64_fields={"count": 100_001}),
                   "too_many_entries")  # fmt: skip
    body = bytes(33 * 1024**2)
    yield _refused("a directory of 33 MiB", archive(prefix=body, directory_size=len(body), entries=1),
                   "directory_too_large")  # fmt: skip
    for size, packed, method in ((6, None, 0), (7, 0, 8), (1, 9000, 8), (0, 5000, 8)):
        member = Member(data=bytes(packed if packed is not None else 5), method=method, size=size)
        yield _refused(f"{packed} bytes to {size}", archive(member), "inconsistent", "a.txt")
    yield _refused("folder with content", archive(Member(name=b"a/")), "inconsistent", "a/")


PAIRS = [
    ("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("Отчёт", "ОТЧЁТ"), ("straße", "STRASSE"), ("\u0439", "\u0438\u0306"),
    ("\uac00", "\u1100\u1161"),
    ("a/b", "a//b"), ("a/b", "./a/./b"), ("a/b", "a\\b"), ("a", "a."), ("a", "a "), ("a", "a/"),
    ("a", "a/b"), ("a", "a/b/c/d"), ("A", "a/b/c/d"), ("ф", "Ф/b"),
]  # fmt: skip


def meetings() -> Iterator[Case]:
    for number, pair in enumerate(PAIRS):
        for turned in dict.fromkeys((pair, pair[::-1])):
            members = [Member(name=n.encode(), data=b"" if n[-1] == "/" else b"1", flags=0x800) for n in turned]
            entry = pair[1] if pair[1].count("/") > pair[0].count("/") and pair[1][-1] != "/" else turned[1]
            if _one_path(*pair):
                entry = turned[1]
            data = archive(Member(name=b"x"), *members, Member(name=b"y/z"))
            yield _refused(f"meeting {number} {turned[0]!r}", data, "duplicate", entry)


def _one_path(first: str, second: str) -> bool:
    """Whether the two are the same path, and not a file and something in it."""
    return (first, second) not in [("a", "a/b"), ("a", "a/b/c/d"), ("A", "a/b/c/d"), ("ф", "Ф/b")]


def headers() -> Iterator[Case]:
    for name, member in {
        "name": Member(local_name=b"b.txt"),
        "longer name": Member(local_name=b"a.txt.exe"),
        "method": Member(local_method=8),
        "crc": Member(local_crc=1),
        "size": Member(local_size=6),
        "packed size": Member(local_packed=6),
        "encryption": Member(local_flags=1),
        "signature": Member(local_signature=b"PK\x03\x05"),
        "extra field": Member(data=b"", size=5, packed=5, local_extra=bytes(8)),
        "Unicode name": Member(local_extra=unicode_field(b"a.txt", "b.txt")),
        "descriptor": replace(described(TEXT, data=(1, 2, 3)), name=b"a.txt"),
        "no descriptor": replace(described(TEXT), name=b"a.txt", descriptor=b""),
        "described, other size": replace(described(TEXT), name=b"a.txt", local_size=7),
    }.items():
        for place, members in (("alone", ()), ("second", (Member(name=b"x"),))):
            yield _refused(f"local {name} {place}", archive(*members, member), "header_mismatch", "a.txt")
    flag = Member(name="ы.txt".encode(), flags=0x800, local_flags=0)
    yield _refused("local UTF-8 flag", archive(flag), "header_mismatch", "ы.txt")
    hidden = Member(name=b"hidden")
    for gap in (b"", b"...", bytes(1000)):
        yield _refused(f"hidden after {len(gap)}", archive(Member(gap=gap + hidden.local())), "hidden_entries", "a.txt")
    yield _refused("hidden first", archive(replace(hidden, in_directory=False), Member()), "hidden_entries")
    yield _refused("hidden in a prefix", archive(Member(), prefix=b"MZ..." + hidden.local()), "hidden_entries")
    yield _refused("marked as UTF-8", archive(Member(name=b"\xff.txt", flags=0x800)), "inconsistent", "\\xff.txt")
    for name, other in {"folder": "b/a.txt", "type": "a.exe", "not UTF-8": "\udcff"}.items():
        member = Member(extra=unicode_field(b"a.txt", other))
        yield _refused(f"Unicode name {name}", archive(member), "inconsistent", "a.txt")


def ends() -> Iterator[Case]:
    for length in (1, 2, 21, 22, 23, 1000):
        yield _refused(f"{length} bytes after the end", archive(Member(), after_end=b"\n" * length), "trailing_data")
    two = archive(Member(name=b"1")) + archive(Member(name=b"2"))
    yield _refused("two archives", two, "two_directories")
    inner = b"x" + archive(Member(name=b"other"))
    yield _refused("an archive within the comment", archive(Member(), comment=inner), "two_directories")
    yield _refused("an end within the comment", archive(Member(), comment=END + bytes(30)), "two_directories")
    front = bytes(len(Member().local())) + Member().central(0)
    yield _refused("two directories", archive(Member(), prefix=front), "two_directories")
    yield _refused("too few counted", archive(Member(), Member(name=b"b"), entries=1), "inconsistent")
    yield _refused("none counted", archive(Member(), entries=0), "inconsistent")
    yield _refused("too many counted", archive(Member(), entries=2), "inconsistent")
    yield _refused("other volume's count", archive(Member(), entries_here=2), "inconsistent")
    junk = archive(Member(), after_directory=b"junk", directory_size=55)
    yield _refused("junk in the directory", junk, "inconsistent")
    yield _refused("empty directory", archive(Member(in_directory=False)), "inconsistent")
    yield _refused("directory further on", archive(Member(), directory_offset=60), "truncated")
    for name, parts in {
        "count": {"sentinels": False, "zip64_fields": {"count": 2}},
        "length": {"zip64_fields": {"length": 45}},
        "locator": {"locator": {"at": 7}},
    }.items():
        yield _refused(f"ZIP64 {name}", archive(Member(), zip64=True, **parts), "inconsistent")
    for name, member in {
        "missing": Member(size=U32, packed=U32),
        "short": Member(size=U32, packed=U32, extra=zip64_field(5)),
        "twice": Member(size=U32, extra=zip64_field(5) + zip64_field(6)),
        "other": Member(extra=zip64_field(6, 6)),
    }.items():
        yield _refused(f"ZIP64 sizes {name}", archive(member), "inconsistent", "a.txt")


def unsupported() -> Iterator[Case]:
    for method in (1, 2, 5, 6, 9, 10, 18, 93, 95, 97, 98, 7777):
        yield _refused(f"method {method}", archive(Member(), Member(name=b"m", method=method)), "method", "m")
    yield _refused("last disk", archive(Member(), disk=1), "volumes")
    yield _refused("disk of the directory", archive(Member(), directory_disk=1), "volumes")
    yield _refused("disk of a member", archive(Member(disk=1)), "volumes", "a.txt")
    far = Member(disk=U16, extra=field_of(1, struct.pack("<I", 3)))
    yield _refused("disk in ZIP64", archive(far), "volumes", "a.txt")
    yield _refused("disks in the locator", archive(Member(), zip64=True, locator={"disks": 2}), "volumes")
    yield _refused("first volume", b"PK\x07\x08" + bytes(500), "volumes")
    packed = archive(Member(), zip64=True, zip64_fields={"needed": 62}, zip64_more=bytes(28))
    yield _refused("packed directory", packed, "unsupported")
    for number, data in enumerate(
        [b"", bytes(5000), b"Rar!\x1a\x07\x00" + bytes(90), b"%PDF-1.7 " * 40, b"7z\xbc\xaf"]
    ):
        yield _refused(f"no archive {number}", data, "not_zip")


def truncations() -> Iterator[Case]:
    whole = archive(TEXT, Member(name="папка/b".encode(), flags=0x800), comment=b"a comment")
    for length in sorted(random.Random(SEED).sample(range(1, len(whole)), 30)):
        yield _refused(f"cut to {length}", whole[:length], "truncated")


def mutations() -> Iterator[Case]:
    """Bits of the directory's own structure, each of which must be noticed."""
    whole = archive(Member(name=b"a"), Member(name=b"b"), Member(name=b"c"))
    starts = [at for at in range(len(whole)) if whole.startswith(b"PK\x01\x02", at)]
    for number, at in enumerate(starts):
        changed = bytearray(whole)
        changed[at] ^= 1
        yield _refused(f"signature {number}", bytes(changed), "truncated")
        changed = bytearray(whole)
        changed[at + 16] ^= 1
        yield _refused(f"crc {number}", bytes(changed), "header_mismatch", "abc"[number])
        changed = bytearray(whole)
        changed[at + 32] = 255
        yield _refused(f"length of a comment {number}", bytes(changed), "truncated")


def odd() -> Iterator[Case]:
    """Archives that look odd and are sound."""
    yield Case("prefix", archive(Member(), prefix=b"MZ" + bytes(300)), warnings=frozenset({"prefix"}))
    yield Case("padding between", archive(Member(gap=b"padding")), warnings=frozenset({"unreferenced"}))
    yield Case("damaged extra", archive(Member(extra=b"\x01\x00\xff\xff")), warnings=frozenset({"extra_field"}))
    folders = archive(Member(name=b"a/", data=b""), Member(name=b"A/", data=b""))
    yield Case("folder twice", folders, warnings=frozenset({"repeated_folder"}))
    marked = Member(name=b"a", data=b"", attributes=0o040755 << 16 | 0x10)
    yield Case("folder by attributes", archive(marked), warnings=frozenset({"folder_mark"}))
    for form in ("<4sIII", "<III", "<4sIQQ", "<IQQ"):
        yield Case(f"descriptor {form}", archive(described(TEXT, form), Member(name=b"b")))
    for name in (
        "...a",
        "a..b",
        ".git/x",
        "a b/c d.txt",
        "👩‍💻.png",
        "no\u202fam",
        "Ёж",
        "наш/файл.dcm",
        "a/b/c/d/e/f",
    ):
        yield Case(f"sound {name!r}", archive(Member(name=name.encode(), flags=0x800)))
    for sentinels in (True, False):
        yield Case(f"ZIP64 {sentinels}", archive(TEXT, Member(name=b"b"), zip64=True, sentinels=sentinels))
    yield Case("empty", archive())
    yield Case("comment", archive(TEXT, comment="Итог".encode()))
    for marker in (b"PK00", b"PK\x07\x08"):
        counted = archive(Member(offset=4), prefix=marker, directory_offset=4 + len(Member().local()))
        yield Case(f"span marker {marker!r}", counted)
        yield Case(f"span marker {marker!r} that no offset counts", archive(Member(), prefix=marker),
                   warnings=frozenset({"prefix"}))  # fmt: skip
    for page in ("cp866", "cp1251", "utf-8"):
        yield Case(f"name in {page}", archive(Member(name="Отчёт.txt".encode(page))),
                   warnings=frozenset({"name_encoding"}))  # fmt: skip
    beside = Member(name=b"report.txt", extra=unicode_field(b"report.txt", "отчёт.txt"))
    yield Case("name in a Unicode Path", archive(beside), warnings=frozenset({"name_encoding"}))
    yield Case("no moment", archive(Member(stamp=0xFFFFFFFF)))
    yield Case("archive within", archive(Member(name=b"inner.zip", data=archive(TEXT)), Member(name=b"z")))

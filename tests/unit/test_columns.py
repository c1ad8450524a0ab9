"""What is passed by its columns gets the verdict it would get entry by entry, to the letter."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.archives import Limits, directory, inspect
from domain.archives.columns import Columns, ordinary
from domain.errors.archives import ArchiveRefused
from tests.unit.archive_corpus import Counted, Member, archive, deflated, unicode_field, zip64_field
from tests.unit.hostile_archives import Case, corpus

U16, U32 = 0xFFFF, 0xFFFFFFFF
SMALL = Limits(max_ratio=3, ratio_floor_bytes=50)  # so that a few bytes are a bomb


def verdict(data: bytes, limits: Limits) -> Any:
    try:
        listing = inspect(Counted(data), len(data), limits)
    except ArchiveRefused as error:
        return error.code, str(error), error.details
    return listing.summary, list(listing.entries)


class Passed:
    """Counts the chunks that are passed by their columns; ``off`` lets none pass."""

    def __init__(self) -> None:
        self.off = False
        self.asked = self.chunks = 0

    def __call__(self, *arguments: Any) -> Columns | None:
        found = None if self.off else ordinary(*arguments)
        self.asked += not self.off
        self.chunks += found is not None
        return found


@pytest.fixture(scope="module")
def passed() -> Iterator[Passed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "ordinary", passed := Passed())
        patch.setattr(directory, "_CHUNK_BYTES", 200)  # three or four entries
        yield passed


def same(passed: Passed, data: bytes, limits: Limits) -> None:
    passed.off = True
    slow = verdict(data, limits)
    passed.off = False
    assert verdict(data, limits) == slow


@pytest.mark.parametrize(
    "case", [case for case in corpus() if len(case.data) < 2**20], ids=lambda case: repr(case.name)[:40]
)
def test_the_corpus_gets_the_same_verdicts(case: Case, passed: Passed) -> None:
    same(passed, case.data, Limits())


NAMES = [b"a", b"b.txt", b"folder/", b"folder/c.dcm", b"folder/deeper/d", "имя".encode(), "Имя".encode(), b"\x8a\xa0"]
NAMES += [b"", b"a\nb", b"/\n/", b"//", b"e/\nf", b"g/\n/h", b"..", b"B.TXT", b"i" * 120, "ñ".encode(), b"\xff"]
UT = b"UT\x05\x00\x03\x01\x00up"
EXTRAS = [b"", UT, UT[:-1], b"\x01\x00\x00\x00", zip64_field(5, 5), unicode_field(b"a", "я"), b"up", b"xy\x01\x00"]
members = st.builds(
    Member,
    name=st.sampled_from(NAMES) | st.binary(max_size=4),
    data=st.sampled_from([b"", b"", b"hello"]),
    size=st.sampled_from([None] * 12 + [0, 1, 60, 300, U32]),
    packed=st.sampled_from([None] * 12 + [0, 1, 20, 5000, U32]),
    method=st.sampled_from([0] * 12 + [8, 12, 7, 99]),
    flags=st.sampled_from([0] * 6 + [0x0800] * 6 + [1, 8, 0x40]),
    attributes=st.sampled_from([0o100644 << 16] * 8 + [0, 0x10, 0o40755 << 16, 0o120777 << 16, U16 << 16, 0x20]),
    extra=st.sampled_from([b""] * 6 + EXTRAS),
    remark=st.sampled_from([b""] * 8 + [b"PK\x01\x02", b"/\n/"]),
    disk=st.sampled_from([0] * 24 + [1, U16]),
    offset=st.sampled_from([None] * 24 + [0, 1, 40, U32]),
    gap=st.sampled_from([b""] * 12 + [b"x", bytes(70_000)]),
)


@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(members=st.lists(members, min_size=1, max_size=12), limits=st.sampled_from([Limits(), SMALL]))
def test_whatever_the_members_say(passed: Passed, members: list[Member], limits: Limits) -> None:
    same(passed, archive(*members), limits)


ORDINARY = [
    *(Member(name=b"%d" % i, data=bytes(i)) for i in range(9)),
    *(Member(name=f"срез/{i}.dcm".encode(), flags=0x0800, extra=UT, data=bytes(9)) for i in range(9)),
    *(Member(name=b"f%d/" % i, data=b"", attributes=0o40755 << 16 | 0x10) for i in range(9)),
    *(deflated(b"z%d" % i, b"text " * 40) for i in range(9)),
]


def test_ordinary_archives_are_passed_by_their_columns(passed: Passed) -> None:
    passed.asked = passed.chunks = 0
    same(passed, archive(*ORDINARY), Limits())
    assert passed.chunks == passed.asked > 5


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(members=st.permutations(ORDINARY), odd=members, place=st.integers(0, len(ORDINARY)))
def test_one_odd_entry_among_ordinary_ones(passed: Passed, members: list[Member], odd: Member, place: int) -> None:
    same(passed, archive(*members[:place], odd, *members[place:]), Limits())

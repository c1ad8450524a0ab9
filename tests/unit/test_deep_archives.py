"""The deep inspection: every local header against the directory, within a bounded number of reads."""

import pytest

from domain.archives import inspect
from domain.archives.deep import WINDOW_BYTES, compare_local_headers
from domain.errors.archives import ArchiveHeaderMismatch, ArchiveHiddenEntries
from tests.unit.archive_corpus import Counted, Member, archive, described


def compared(data: bytes, reads: int = 1000) -> tuple[str | None, Counted]:
    listing = inspect(Counted(data), len(data))
    reader = Counted(data)
    return compare_local_headers(reader, len(data), listing, reads), reader


def test_many_small_members_share_reads() -> None:
    data = archive(*(Member(name=b"%05d" % i, data=bytes(100)) for i in range(5000)))
    warning, reader = compared(data)
    assert warning is None
    assert len(reader.reads) <= len(data) // WINDOW_BYTES + 10


def test_large_members_cost_two_reads_each_at_most_and_their_data_are_not_read() -> None:
    data = archive(*(described(Member(name=b"%d" % i, data=bytes(300_000))) for i in range(10)))
    warning, reader = compared(data)
    assert warning is None
    assert len(reader.reads) <= 20
    assert sum(length for _, length in reader.reads) <= 20 * WINDOW_BYTES


@pytest.mark.parametrize("place", [0, 7, 19])
def test_a_contradiction_out_of_sight_is_found(place: int) -> None:
    members = [Member(name=b"%02d" % i, data=bytes(200_000)) for i in range(20)]
    members[place].local_name = b"xx"
    members.append(Member(name=b"last", data=bytes(200_000)))
    data = archive(*members)
    assert inspect(Counted(data), len(data)).summary.entries == 21
    with pytest.raises(ArchiveHeaderMismatch) as caught:
        compared(data)
    assert caught.value.details["entry"] == f"{place:02}"


def test_a_hidden_member_out_of_sight_is_found() -> None:
    data = archive(
        Member(name=b"a", data=bytes(200_000), gap=Member(name=b"hidden").local()),
        Member(name=b"b", data=bytes(200_000)),
    )
    with pytest.raises(ArchiveHiddenEntries):
        compared(data)


@pytest.mark.parametrize("length", [100_000, 131_000, 132_000, 200_000, 3_000_000])
@pytest.mark.parametrize("junk", [b"", b"xx", bytes(131_072 - 20), bytes(400_000)], ids=len)
@pytest.mark.parametrize("last", [False, True])
def test_a_hidden_member_of_any_length_is_found_wherever_it_lies(length: int, junk: bytes, last: bool) -> None:
    hidden = Member(name=b"hidden.exe", data=bytes(length), in_directory=False)
    shown = Member(name=b"1", data=bytes(200_000), gap=junk)
    data = archive(shown, hidden) if last else archive(shown, hidden, Member(name=b"3", data=bytes(200_000)))
    assert inspect(Counted(data), len(data)).summary.entries == 2 - last
    with pytest.raises(ArchiveHiddenEntries):
        compared(data)


def test_a_long_gap_without_members_is_searched_in_bounded_reads_and_after_the_headers() -> None:
    gap = b"PK\x03\x04" + bytes(3_000_000)
    data = archive(Member(name=b"a", data=bytes(200_000), gap=gap), Member(name=b"b", data=bytes(200_000)))
    warning, reader = compared(data)
    assert warning is None
    assert max(length for _, length in reader.reads) <= 2 * WINDOW_BYTES
    warning, reader = compared(data, reads=6)
    assert warning == "local_headers: after 6 reads the rest was not compared with the directory"
    assert max(start for start, _ in reader.reads) > len(gap)  # the second member's header was looked at all the same


def test_what_was_not_compared_is_told() -> None:
    data = archive(*(Member(name=b"%02d" % i, data=bytes(200_000)) for i in range(20)))
    warning, reader = compared(data, reads=5)
    assert warning == "local_headers: after 5 reads the rest was not compared with the directory"
    assert len(reader.reads) == 5

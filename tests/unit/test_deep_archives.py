"""The deep inspection: every local header against the directory, within a bounded number of reads."""

import pytest

from domain.archives import inspect
from domain.archives.deep import WINDOW_BYTES, compare_local_headers
from domain.errors import ArchiveHeaderMismatch, ArchiveHiddenEntries
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


def test_what_was_not_compared_is_told() -> None:
    data = archive(*(Member(name=b"%02d" % i, data=bytes(200_000)) for i in range(20)))
    warning, reader = compared(data, reads=5)
    assert warning == "local_headers: after 5 reads the rest of the local headers was not compared"
    assert len(reader.reads) == 5

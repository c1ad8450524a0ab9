"""Local headers walked as the bytes go by: the same in pieces of any size, and compared with the directory."""

import random
import time

import pytest

from domain.archives import inspect
from domain.archives.walking import Walker, agrees
from tests.unit.archive_corpus import Counted, Member, archive, described


def seen(data: bytes, chance: random.Random | None = None) -> str | None:
    walker, at = Walker(), 0
    while at < len(data):
        size = chance.choice((1, 2, 7, 29, 31, 100, 5000)) if chance else 512 * 1024
        walker.feed(data[at : at + size])
        at += size
    return walker.seen


def listed(data: bytes) -> list[object]:
    return list(inspect(Counted(data), len(data)).entries)


def members(count: int = 30) -> list[Member]:
    return [Member(name=b"folder/%03d.txt" % number, data=bytes(number * 400)) for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_it_does_not_matter_how_the_bytes_are_cut(seed: int) -> None:
    data = archive(*members())
    found = seen(data, random.Random(seed))
    assert found == seen(data)
    assert found is not None
    assert found.startswith("30+:")
    assert agrees(found, listed(data))


def test_every_field_that_readers_go_by_counts() -> None:
    honest = members()
    whole = archive(*honest)
    entries = listed(whole)
    for place, changes in ((0, {"local_name": b"folder/xxx.txt"}), (17, {"local_crc": 7}), (29, {"local_method": 8})):
        lying = members()
        for name, value in changes.items():
            setattr(lying[place], name, value)
        found = seen(archive(*lying))
        assert found is not None
        assert not agrees(found, entries), changes


def test_a_member_that_the_directory_does_not_name_is_noticed() -> None:
    data = archive(Member(name=b"a", data=bytes(999), gap=Member(name=b"hidden").local()), Member(name=b"b"))
    found = seen(data)
    assert found is not None
    assert not agrees(found, listed(archive(Member(name=b"a", data=bytes(999)), Member(name=b"b"))))


def test_an_entry_that_has_no_member_is_noticed() -> None:
    found = seen(archive(*members(3)))
    assert found is not None
    assert not agrees(found, listed(archive(*members(4))))


def test_it_ends_where_a_size_follows_the_data_and_vouches_for_what_came_before() -> None:
    data = archive(*members(5), described(Member(name=b"streamed", data=bytes(100))), Member(name=b"last"))
    found = seen(data)
    assert found is not None
    assert found.startswith("5:")
    assert agrees(found, listed(data))


def test_members_may_lie_in_another_order_than_they_are_listed() -> None:
    data = archive(*members(6))
    found = seen(data)
    assert found is not None
    assert agrees(found, list(reversed(listed(data))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [b"", b"plain text", b"PK\x05\x06" + bytes(18), b"PK\x03\x04", b"PK\x03\x04" + bytes(26)]
)
def test_what_holds_no_member_says_nothing_or_nothing_wrong(data: bytes) -> None:
    found = seen(data)
    assert found is None or found.startswith("1:")


def test_a_header_that_claims_everything_costs_nothing() -> None:
    head = Member(
        name=b"n" * 0xFFFF, local_packed=0xFFFFFFFE, local_size=0xFFFFFFFE, local_extra=b"\xff" * 0xFFFF
    ).local()
    began = time.process_time()
    walker = Walker()
    for _ in range(200):
        walker.feed(head)
    assert time.process_time() - began < 1

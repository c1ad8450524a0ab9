"""Local headers walked as the bytes go by: the same in pieces of any size, and compared with the directory."""

import itertools
import random
import time
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.archives import Entry, inspect
from domain.archives.walking import HELD_BYTES, Walker, agrees, covers
from tests.unit.archive_corpus import Counted, Member, archive, deflated, described, unicode_field


def seen(data: bytes, chance: random.Random | None = None) -> str | None:
    walker, at = Walker(), 0
    while at < len(data):
        size = chance.choice((1, 2, 7, 29, 31, 100, 5000)) if chance else 512 * 1024
        walker.feed(data[at : at + size])
        at += size
    return walker.seen


def listed(data: bytes) -> list[Entry]:
    return list(inspect(Counted(data), len(data)).entries)


def directory_of(data: bytes) -> int:
    return inspect(Counted(data), len(data)).summary.directory_offset


def piped(files: dict[str, bytes]) -> bytes:
    """An archive as Python writes it where it cannot seek back."""
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:  # type: ignore[arg-type]
        for name, content in files.items():
            made.writestr(name, content)
    return bytes(pipe.written)


class Pipe:
    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def flush(self) -> None:
        pass


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


FORMS = ("<4sIII", "<4sIQQ")
TEXT = deflated(b"text", b"what a compressor gives " * 999)


@pytest.mark.parametrize("form", FORMS)
def test_members_whose_sizes_follow_their_data_are_walked_past(form: str) -> None:
    data = archive(
        *members(5),
        described(Member(name=b"stored", data=bytes(100)), form),
        described(TEXT, form),
        described(Member(name=b"empty", data=b""), form),
        Member(name=b"plain"),
        described(Member(name=b"last", data=bytes(70_000)), form),
    )
    found = seen(data)
    assert found is not None
    assert found.startswith("10+:")
    assert agrees(found, listed(data))
    assert covers(found, directory_of(data))


def test_what_python_writes_to_a_pipe_is_walked_past() -> None:
    data = piped({f"{number}.bin": random.Random(number).randbytes(number * 3000) for number in range(20)})
    found = seen(data)
    assert found is not None
    assert found.startswith("20+:")
    assert agrees(found, listed(data))


@pytest.mark.parametrize("value", [(1, 100, 100), (None, 100, 101)])
def test_a_descriptor_that_the_directory_contradicts_is_noticed(value: tuple[int | None, int, int]) -> None:
    honest = Member(name=b"a", data=bytes(100))
    said = (value[0] or honest.checksum(), *value[1:])
    found = seen(archive(described(honest, data=said), Member(name=b"z")))
    assert found is not None
    assert found.startswith("2+:")
    assert not agrees(found, listed(archive(described(honest), Member(name=b"z"))))


def test_a_header_that_its_own_descriptor_contradicts_is_noticed() -> None:
    honest = described(Member(name=b"a", data=bytes(100)))
    for changes in ({"local_crc": 7}, {"local_size": 101}, {"local_packed": 99}):
        found = seen(archive(replace(honest, **changes), Member(name=b"z")))  # type: ignore[arg-type]
        assert found is not None
        assert found.startswith("2+:")
        assert not agrees(found, listed(archive(honest, Member(name=b"z")))), changes


def test_descriptors_within_the_data_are_not_taken_for_the_end() -> None:
    inner = archive(described(Member(name=b"in", data=bytes(50))), Member(name=b"z"))
    outer = described(Member(name=b"outer.zip", data=inner * 3 + b"PK\x07\x08" * 100 + b"PK\x07"))
    data = archive(outer, described(TEXT))
    found = seen(data)
    assert found is not None
    assert found.startswith("2+:")
    assert agrees(found, listed(data))


def test_a_descriptor_without_its_signature_ends_the_walk_which_vouches_for_what_came_before() -> None:
    data = archive(*members(5), described(Member(name=b"streamed", data=bytes(100)), "<III"), Member(name=b"last"))
    found = seen(data)
    assert found is not None
    assert found.startswith("5:")
    assert agrees(found, listed(data))
    assert not covers(found, directory_of(data))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    parts=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"PK", b"PK\x07\x08", b"PK\x03\x04", b"PK\x01\x02", bytes(28)]),
            st.builds(
                lambda data, form, crc: described(Member(name=b"n", data=data, crc=crc), form).local(),
                st.binary(max_size=40),
                st.sampled_from([*FORMS, "<III"]),
                st.none() | st.just(1),
            ),
            st.binary(max_size=20).map(lambda data: Member(name=b"p", data=data).local()),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_no_cut_of_anything_changes_what_is_seen(parts: list[bytes], cuts: list[int]) -> None:
    data = Member(name=b"first").local() + b"".join(parts) + Member().central(0) + bytes(30)
    whole, walker, at = Walker(), Walker(), 0
    whole.feed(data)
    for cut in itertools.cycle(cuts):
        walker.feed(data[at : at + cut])
        at += cut
        if at >= len(data):
            break
    assert walker.seen == whole.seen
    assert walker.held <= HELD_BYTES


def test_what_earlier_versions_noted_is_read_and_never_saves_a_deep_inspection() -> None:
    data = archive(*members(3), described(Member(name=b"streamed", data=bytes(100))), Member(name=b"last"))
    # version 0.1 ended before `streamed`, and for an archive without such members said only that all were seen
    ended = seen(archive(*members(3)))
    assert ended is not None
    digest = ended.partition("=")[0].partition(":")[2]
    assert agrees(f"3:{digest}", listed(data))
    assert not covers(f"3:{digest}", directory_of(data))
    whole = archive(*members(3))
    assert agrees(f"3+:{digest}", listed(whole))
    assert not covers(f"3+:{digest}", directory_of(whole))


def test_it_covers_nothing_when_a_header_needs_a_closer_look_or_bytes_lie_before_the_directory() -> None:
    other = archive(Member(name=b"a.txt", local_extra=unicode_field(b"a.txt", "b.txt")))
    found = seen(other)
    assert found is not None
    assert found.startswith("1+:")
    assert not covers(found, len(Member(name=b"a.txt", local_extra=unicode_field(b"a.txt", "b.txt")).local()))
    hiding = archive(Member(gap=b"PK\x01\x02" + Member(name=b"hidden").local()))
    found = seen(hiding)
    assert found is not None
    assert agrees(found, listed(archive(Member())))
    assert not covers(found, hiding.index(Member().central(0)))


def test_a_body_full_of_signatures_costs_little_more_than_any_other() -> None:
    head = described(Member(name=b"a")).local()[: 30 + 1]
    size = 32 * 1024**2
    seconds = []
    for body in (bytes(1024**2), b"PK\x07\x08" * (1024**2 // 4)):
        walker, best = Walker(), 9.0
        for _ in range(3):
            began = time.process_time()
            walker = Walker()
            walker.feed(head)
            for _ in range(size // len(body)):
                walker.feed(body)
            best = min(best, time.process_time() - began)
        assert walker.seen is None
        seconds.append(best)
    assert seconds[1] < 4 * seconds[0] + 0.05


def test_members_may_lie_in_another_order_than_they_are_listed() -> None:
    data = archive(*members(6))
    found = seen(data)
    assert found is not None
    assert agrees(found, list(reversed(listed(data))))


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

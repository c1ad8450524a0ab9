"""Archives nobody has thought of: whatever is read of them ends in an error with a name, soon and in little memory."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.archives import Limits, Listing, Member, Unpacking, dicom, inspect
from domain.archives.deep import compare_local_headers
from domain.archives.walking import HELD_BYTES, Walker, agrees, covers
from domain.errors import tree
from domain.errors.archives import ArchiveRefused, MemberDamaged
from tests.unit.archive_corpus import CENTRAL, END, LOCAL, archive, deflated, described
from tests.unit.archive_corpus import Member as Made
from tests.unit.hostile_archives import Case, corpus

MIB = 1024**2
SECONDS = 2.0  # of CPU, for all that is done with one archive
JUDGED = 8 * MIB  # of an archive of a few KiB: lists, hashes, chunks of names
UNPACKED = 24 * MIB  # a member may ask for a dictionary of 16 MiB

T = TypeVar("T")
CORPUS = corpus()
SEEDS = [case.data for case in CORPUS if 0 < len(case.data) < 16 * 1024] + [
    archive(*(described(deflated(b"%d.dcm" % i, b"text " * i)) for i in range(9)), Made(name=b"l", method=14)),
    archive(*(Made(name=b"%d" % i, data=bytes(i * 100)) for i in range(99)), zip64=True),
]
MARKS = [LOCAL, CENTRAL, END, b"PK\x07\x08", b"PK\x06\x06", b"PK\x06\x07", b"\0", b"\xff" * 4, b"/", b"..", b"\1\0"]
CODES = {error.code for error in tree() if issubclass(error, ArchiveRefused)}


@contextmanager
def within(memory: int) -> Iterator[None]:
    tracemalloc.reset_peak()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    yield
    assert time.process_time() - began < SECONDS
    assert tracemalloc.get_traced_memory()[1] - before < memory


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def named(call: Callable[[], T]) -> T | None:
    """What ``call`` gives, None where it refuses the archive by a code of its own."""
    try:
        return call()
    except ArchiveRefused as error:
        refusal = error
    assert refusal.code in CODES - {"archive_refused"}
    assert str(refusal)
    return None


def read_all(data: bytes, cut: int) -> None:
    """Everything that is ever done with an archive, but for the sending."""

    def read(start: int, length: int) -> bytes:
        assert 0 <= start <= start + length <= len(data)
        return data[start : start + length]

    with within(JUDGED):
        walker = Walker()
        for at in range(0, len(data), cut):
            walker.feed(data[at : at + cut])
            assert walker.held <= HELD_BYTES
        listing = named(lambda: inspect(read, len(data), Limits()))
        if listing is None:
            return
        seen = walker.seen
        if seen is not None and agrees(seen, listing.entries) and covers(seen, listing.summary.directory_offset):
            # what costs no read says the same as what does
            assert compare_local_headers(read, len(data), listing, 100) is None
        named(lambda: compare_local_headers(read, len(data), listing, 100))
    with within(UNPACKED):
        _unpack(data, listing)


def _unpack(data: bytes, listing: Listing) -> None:
    for entry in islice(listing.entries, 4):
        member, size = Member.of(entry), 0
        try:
            start = member.data_offset(data[entry.header_offset :][: member.head_bytes])
            unpacking = Unpacking(member)
            for piece in unpacking.feed(data[start : start + member.compressed_size]):
                size += len(piece)
                if size > MIB:
                    break
            else:
                unpacking.close()
                assert size == member.size
        except MemberDamaged:
            pass
    members, _ = dicom.candidates(listing.entries, 4)
    for member in members:
        with suppress(Exception):  # documented: of any kind
            dicom.read_slice(member, data[member.header_offset :][: member.head_bytes + dicom.HEAD_BYTES])


changes = st.lists(
    st.tuples(
        st.sampled_from(["over", "insert", "delete", "splice", "twice"]),
        st.integers(0, 2**20),
        st.integers(0, 400),
        st.sampled_from(MARKS) | st.binary(max_size=8),
        st.integers(0, len(SEEDS) - 1),
    ),
    max_size=5,
)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(seed=st.sampled_from(SEEDS), changes=changes, cut=st.sampled_from([1, 7, 1000, MIB]))
def test_no_splice_of_archives_ends_in_anything_but_a_listing_or_a_code(
    seed: bytes, changes: list[tuple[str, int, int, bytes, int]], cut: int
) -> None:
    data = seed
    for what, place, length, patch, other in changes:
        at = place % (len(data) + 1)
        piece = SEEDS[other][place % len(SEEDS[other]) :][:length]
        match what:
            case "over":
                data = data[:at] + patch + data[at + len(patch) :]
            case "insert":
                data = data[:at] + patch + data[at:]
            case "delete":
                data = data[:at] + data[at + length :]
            case "splice":
                data = data[:at] + piece + data[at:]
            case "twice":
                data = data[:at] + data[at : at + length] * 2 + data[at + length :]
    read_all(data, cut)


@pytest.mark.parametrize("size", [0, 1, 3, 21, 22, 29, 30, 46, 98])
def test_the_beginnings_of_archives_are_read_like_any_other(size: int) -> None:
    for mark in MARKS:
        read_all((mark * 30)[:size], 7)


def test_nothing_of_the_corpus_takes_2_seconds_or_64_mib() -> None:
    worst: list[tuple[float, int, str]] = []
    for case in CORPUS:
        best = min((_cost(case) for _ in range(1 if len(case.data) < MIB else 3)), key=lambda cost: cost[0])
        worst.append((*best, case.name))
    print(sorted(worst)[-3:], sorted(worst, key=lambda one: one[1])[-3:])  # noqa: T201
    assert max(seconds for seconds, _, _ in worst) < SECONDS
    assert max(memory for _, memory, _ in worst) < 64 * MIB


def _cost(case: Case) -> tuple[float, int]:
    """Seconds of CPU and bytes at most of an inspection and a walk, the file itself left out."""
    view = case.data
    tracemalloc.reset_peak()
    before, began = tracemalloc.get_traced_memory()[0], time.process_time()
    named(lambda: inspect(lambda start, length: view[start : start + length], len(view), Limits()))
    walker = Walker()
    for at in range(0, len(view), 512 * 1024):
        walker.feed(view[at : at + 512 * 1024])
    return time.process_time() - began, tracemalloc.get_traced_memory()[1] - before

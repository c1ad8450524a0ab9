"""A member unpacked: its packed data end where they are declared to, however they come."""

import bz2
import itertools
import zlib
from dataclasses import replace

import pytest

from domain.archives import Member, Unpacking, inspect
from domain.errors.archives import MemberDamaged
from tests.unit import archive_corpus
from tests.unit.archive_corpus import Counted, archive, deflated

TEXT = b"what a compressor gives " * 99
PACKED = bz2.compress(TEXT)
MEMBERS = {
    "deflated": deflated(b"a", TEXT),
    "bzip2": archive_corpus.Member(name=b"a", data=PACKED, size=len(TEXT), crc=zlib.crc32(TEXT), method=12),
    "stored": archive_corpus.Member(name=b"a", data=TEXT),
}


def unpacked(made: archive_corpus.Member, step: int) -> bytes:
    data = archive(made)
    member = Member.of(inspect(Counted(data), len(data)).entries[0])
    unpacking, whole = Unpacking(member), b""
    for start in range(0, len(made.data), step):
        whole += b"".join(unpacking.feed(made.data[start : start + step]))
    unpacking.close()
    return whole


@pytest.mark.parametrize(("method", "step"), list(itertools.product(MEMBERS, [1, 7, 10**6])))
def test_it_comes_out_whole(method: str, step: int) -> None:
    assert unpacked(MEMBERS[method], step) == TEXT


@pytest.mark.parametrize(("method", "step"), list(itertools.product(["deflated", "bzip2"], [1, 7, 10**6])))
@pytest.mark.parametrize("more", [b"\0", b"MZ garbage" * 20, PACKED], ids=len)
def test_what_follows_its_packed_data_is_damage(method: str, step: int, more: bytes) -> None:
    made = MEMBERS[method]
    with pytest.raises(MemberDamaged, match="something follows its packed data"):
        unpacked(replace(made, data=made.data + more, size=len(TEXT)), step)


@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_packed_data_without_an_end_are_damage(step: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    endless = packer.compress(TEXT) + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(MemberDamaged, match="no end"):
        unpacked(replace(MEMBERS["deflated"], data=endless), step)


def test_an_empty_member_may_be_called_deflated() -> None:
    assert unpacked(archive_corpus.Member(name=b"a", data=b"", method=8), 1) == b""

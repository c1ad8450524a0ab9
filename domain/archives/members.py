"""One member unpacked as its bytes come, with every promise of the directory checked.

The directory's sizes were only declared; here they are counted. Output is given in pieces of bounded size, however much
a few packed bytes unpack to.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

import msgspec

from domain.archives.ends import LOCAL
from domain.archives.entries import METHODS
from domain.archives.shapes import Entry, shown
from domain.errors.archives import MemberDamaged

PIECE_BYTES = 256 * 1024  # of output at once
# what an LZMA member may ask for: each reader of one holds it. 7-Zip's normal level asks for 16 MiB, its highest for 64
_DICTIONARY_BYTES = 16 * 1024**2
_HEADER = struct.Struct("<4sxxHH16xHH")
_CODES = {name: code for code, name in METHODS.items()}


class Member(msgspec.Struct, frozen=True):
    """What is needed to unpack an entry; fields as of ``Entry``. Sizes are bytes."""

    name: str
    raw_name: bytes
    size: int
    compressed_size: int
    crc32: int
    method: str
    is_folder: bool
    content_type: str | None
    header_offset: int

    @classmethod
    def of(cls, entry: Entry) -> "Member":
        return cls(**{name: getattr(entry, name) for name in cls.__struct_fields__})

    @property
    def head_bytes(self) -> int:
        """How much of the file from ``header_offset`` on ``data_offset`` wants to see."""
        return _HEADER.size + len(self.raw_name)

    def data_offset(self, head: bytes) -> int:
        """Where the member's data begins in the file, by its local header (APPNOTE 4.3.7).

        Raises:
            MemberDamaged: the local header is not there or is another member's.
        """
        if len(head) != self.head_bytes or not head.startswith(LOCAL):
            raise self.damaged("its local header is not there")
        _, flags, code, named, extra = _HEADER.unpack_from(head)
        if code != _CODES.get(self.method) or flags & 1 or head[_HEADER.size :] != self.raw_name:
            raise self.damaged("its local header contradicts the directory")
        return self.header_offset + _HEADER.size + int(named) + int(extra)

    def damaged(self, reason: str) -> MemberDamaged:
        return MemberDamaged(entry=shown(self.name), reason=reason)


class _Decompressor(Protocol):
    """As of ``bz2.BZ2Decompressor``."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Unpacking:
    """Feed it the packed bytes in order, then ``close`` it.

    Raises:
        MemberDamaged: more comes out than was declared, less, something else, or the packed data make no sense, have no
            end or end early.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._left = member.size
        self._crc = 0
        self._machine: _Decompressor | None = None if member.method == "lzma" else _machine(member.method)
        self._head = b""  # of LZMA, until it is complete

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """What ``packed`` unpacks to, in pieces of at most ``PIECE_BYTES``; take all of them before feeding more."""
        try:
            if self._machine is None:
                self._head += packed
                if len(self._head) < 4 or len(self._head) < (whole := 4 + int.from_bytes(self._head[2:4], "little")):
                    return
                self._machine, packed = self._lzma(self._head[4:whole]), self._head[whole:]
            machine = self._machine
            if machine.eof and packed:
                raise self._after_end()
            while not machine.eof:
                # one byte more than is left tells a member that unpacks to more than it declares
                piece = machine.decompress(packed, min(PIECE_BYTES, self._left + 1))
                packed = b""
                if not piece and machine.needs_input:
                    return
                if piece:
                    yield self._counted(piece)
            if machine.unused_data:
                raise self._after_end()
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise self._member.damaged(str(error)) from None

    def close(self) -> None:
        """Raises MemberDamaged for data that ended early or have another checksum."""
        if self._left:
            raise self._member.damaged(f"{self._left} of its {self._member.size} bytes are missing")
        if self._crc != self._member.crc32:
            raise self._member.damaged("its checksum is wrong")
        if self._member.method in ("deflated", "bzip2") and self._member.compressed_size and not self._ended():
            raise self._member.damaged("its packed data have no end")

    def _ended(self) -> bool:
        return self._machine is not None and self._machine.eof

    def _after_end(self) -> MemberDamaged:
        return self._member.damaged("something follows its packed data")

    def _counted(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise self._member.damaged(f"it unpacks to more than its {self._member.size} bytes")
        self._crc = zlib.crc32(piece, self._crc)
        return piece

    def _lzma(self, properties: bytes) -> _Decompressor:
        """APPNOTE 5.8.8: a byte for lc, lp and pb as in the LZMA SDK, then the size of the dictionary."""
        if len(properties) != 5 or properties[0] >= 225:
            raise self._member.damaged("its LZMA properties make no sense")
        rest, size = properties[0], int.from_bytes(properties[1:], "little")
        if size > _DICTIONARY_BYTES:
            raise self._member.damaged(f"it wants a dictionary of {size} bytes, at most {_DICTIONARY_BYTES} are given")
        chain = {"id": lzma.FILTER_LZMA1, "dict_size": max(size, 4096)}
        chain |= {"lc": rest % 9, "lp": rest // 9 % 5, "pb": rest // 45}
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])


def _machine(method: str) -> _Decompressor:
    return bz2.BZ2Decompressor() if method == "bzip2" else _Inflater() if method == "deflated" else _Stored()


class _Inflater:
    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-15)
        self._rest = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inflate.decompress(self._rest + data, max_length)
        self._rest = self._inflate.unconsumed_tail
        # zlib may still hold output of bytes it has taken: only a call that gives less than it may shows it dry
        self.needs_input = not self._rest and len(piece) < max_length
        return piece


class _Stored:
    eof = False
    unused_data = b""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def needs_input(self) -> bool:
        return not self._rest

    def decompress(self, data: bytes, max_length: int) -> bytes:
        data = self._rest + data
        piece, self._rest = data[:max_length], data[max_length:]
        return piece

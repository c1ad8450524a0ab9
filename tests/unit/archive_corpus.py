"""ZIP archives made field by field, so that every field can lie."""

import struct
import zlib
from dataclasses import dataclass, field, replace

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
U16, U32 = 0xFFFF, 0xFFFFFFFF
DOS_MOMENT = (2024 - 1980) << 25 | 5 << 21 | 6 << 16 | 7 << 11 | 8 << 5 | 9  # 2024-05-06 07:08:18


@dataclass
class Member:
    """One member; the ``local_*`` fields are what its local header says where that differs from the directory."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"
    size: int | None = None
    packed: int | None = None
    crc: int | None = None
    method: int = 0
    flags: int = 0
    host: int = 3
    attributes: int = 0o100644 << 16
    stamp: int = DOS_MOMENT
    extra: bytes = b""
    remark: bytes = b""
    disk: int = 0
    offset: int | None = None
    local_name: bytes | None = None
    local_flags: int | None = None
    local_method: int | None = None
    local_crc: int | None = None
    local_size: int | None = None
    local_packed: int | None = None
    local_extra: bytes = b""
    local_signature: bytes = LOCAL
    descriptor: bytes = b""
    gap: bytes = b""  # after the member
    in_directory: bool = True
    in_body: bool = True

    def checksum(self) -> int:
        return zlib.crc32(self.data) if self.crc is None else self.crc

    def sizes(self) -> tuple[int, int]:
        packed = len(self.data) if self.packed is None else self.packed
        return packed, len(self.data) if self.size is None else self.size

    def local(self) -> bytes:
        def or_listed(ours: int | None, listed: int) -> int:
            return listed if ours is None else ours

        packed, size = self.sizes()
        name = self.name if self.local_name is None else self.local_name
        return (
            struct.pack(
                "<4sHHHIIIIHH",
                self.local_signature,
                20,
                or_listed(self.local_flags, self.flags),
                or_listed(self.local_method, self.method),
                self.stamp,
                or_listed(self.local_crc, self.checksum()),
                or_listed(self.local_packed, packed),
                or_listed(self.local_size, size),
                len(name),
                len(self.local_extra),
            )
            + name
            + self.local_extra
            + self.data
            + self.descriptor
            + self.gap
        )

    def central(self, offset: int) -> bytes:
        packed, size = self.sizes()
        return (
            struct.pack(
                "<4sBBHHHIIIIHHHHHII",
                CENTRAL,
                20,
                self.host,
                20,
                self.flags,
                self.method,
                self.stamp,
                self.checksum(),
                packed,
                size,
                len(self.name),
                len(self.extra),
                len(self.remark),
                self.disk,
                0,
                self.attributes,
                offset if self.offset is None else self.offset,
            )
            + self.name
            + self.extra
            + self.remark
        )


@dataclass
class Made:
    """The parts of an archive before they are joined; ``end`` can be replaced."""

    members: list[Member]
    comment: bytes = b""
    prefix: bytes = b""
    after_directory: bytes = b""
    after_end: bytes = b""
    entries: int | None = None
    entries_here: int | None = None
    directory_size: int | None = None
    directory_offset: int | None = None
    disk: int = 0
    directory_disk: int = 0
    zip64: bool = False
    sentinels: bool = True
    zip64_fields: dict[str, int] = field(default_factory=dict)
    zip64_more: bytes = b""
    locator: dict[str, int] = field(default_factory=dict)

    def joined(self) -> bytes:
        body, directory, count = b"", b"", 0
        for member in self.members:
            if member.in_directory:
                directory += member.central(len(body))
                count += 1
            body += member.local() if member.in_body else b""
        size = len(directory) if self.directory_size is None else self.directory_size
        offset = len(body) if self.directory_offset is None else self.directory_offset
        count = count if self.entries is None else self.entries
        here = count if self.entries_here is None else self.entries_here
        ends = b""
        if self.zip64:
            ends = self._zip64(count, size, offset, at=len(body) + len(directory))
            if self.sentinels:
                count, here, size, offset = U16, U16, U32, U32
        ends += struct.pack(
            "<4sHHHHIIH", END, self.disk, self.directory_disk, here & U16, count & U16, size, offset, len(self.comment)
        )
        return self.prefix + body + directory + self.after_directory + ends + self.comment + self.after_end

    def _zip64(self, count: int, size: int, offset: int, at: int) -> bytes:
        fields = {"length": 44 + len(self.zip64_more), "needed": 45, "count": count, "size": size, "offset": offset}
        fields |= self.zip64_fields
        locator = {"disk": 0, "at": at, "disks": 1} | self.locator
        record = struct.pack(
            "<4sQHHIIQQQQ",
            b"PK\x06\x06",
            fields["length"],
            45,
            fields["needed"],
            0,
            0,
            fields["count"],
            fields["count"],
            fields["size"],
            fields["offset"],
        )
        return record + self.zip64_more + struct.pack("<4sIQI", b"PK\x06\x07", *locator.values())


def archive(*members: Member, **parts: object) -> bytes:
    """An archive of these members, sound wherever ``parts`` and the members do not say otherwise."""
    return Made(list(members), **parts).joined()  # type: ignore[arg-type]


def field_of(code: int, data: bytes) -> bytes:
    return struct.pack("<HH", code, len(data)) + data


def zip64_field(*values: int) -> bytes:
    return field_of(0x0001, struct.pack(f"<{len(values)}Q", *values))


def unicode_field(raw: bytes, name: str, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(raw) if crc is None else crc
    return field_of(0x7075, b"\x01" + struct.pack("<I", checksum) + name.encode(errors="surrogateescape"))


def deflated(name: bytes, data: bytes, **more: object) -> Member:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    return replace(Member(name=name, data=packed, size=len(data), crc=zlib.crc32(data), method=8), **more)  # type: ignore[arg-type]


def described(member: Member, form: str = "<4sIII", data: tuple[int, int, int] | None = None) -> Member:
    """The same member written as to a pipe: zeros in its local header, a data descriptor after the data."""
    values = data or (member.checksum(), *member.sizes())
    signature = (b"PK\x07\x08",) if "4s" in form else ()
    return replace(
        member,
        flags=member.flags | 8,
        local_crc=0,
        local_size=0,
        local_packed=0,
        descriptor=struct.pack(form, *signature, *values),
    )


def quoted_overlap(count: int = 20, kernel: int = 100_000) -> bytes:
    """David Fifield's overlap bomb (WOOT 2019): each member quotes the next one's local header as a stored block."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(bytes(kernel)) + packer.flush()
    size, plain, entries = kernel, bytes(kernel), []
    for index in reversed(range(count)):
        member = Member(
            name=b"%03d" % index, data=body, size=size, crc=zlib.crc32(plain), method=8, attributes=0o100644 << 16
        )
        header = member.local()[: 30 + len(member.name)]
        entries.append((member, header))
        quote = b"\x00" + struct.pack("<HH", len(header), len(header) ^ U16) + header
        body = quote + body
        size, plain = size + len(header), header + plain
    entries.reverse()
    whole, directory, offset = body[5:], b"", 0  # the outermost quote is not needed
    for member, header in entries:
        directory += member.central(offset)
        offset += 5 + len(header)
    end = struct.pack("<4sHHHHIIH", END, 0, 0, count, count, len(directory), len(whole), 0)
    return whole + directory + end


class Counted:
    """A range reader over bytes that remembers what it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        assert start >= 0
        assert length > 0
        assert start + length <= len(self.data), "a read outside the file"
        self.reads.append((start, length))
        return self.data[start : start + length]


class Sparse:
    """A range reader over a file far larger than memory: zeros, except for what was put somewhere."""

    def __init__(self, parts: dict[int, bytes]) -> None:
        self.parts = parts
        self.size = max(start + len(part) for start, part in parts.items())

    def __call__(self, start: int, length: int) -> bytes:
        got = bytearray(length)
        for at, part in self.parts.items():
            seen = part[max(0, start - at) : max(0, start + length - at)]
            if seen:
                got[max(0, at - start) : max(0, at - start) + len(seen)] = seen
        return bytes(got)

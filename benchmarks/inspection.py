"""Listing an archive of a million entries with every check on, against ``zipfile.ZipFile()``, which checks little.

Time is measured in one process, in pairs; memory in processes of their own, as the peak of resident bytes above what
they had before. Both read the archive from a file. Afterwards the same entries in 5 MiB and in 50 GiB are compared.
"""

import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from benchmarks.measure import Report, Run, alternate
from domain.archives import Limits, inspect
from tests.unit.archive_corpus import DOS_MOMENT, END, Member

MIB = 1024**2
GIB = 1024**3

# what Info-ZIP writes of each file: its time and its owner
_INFO_ZIP = struct.pack("<HHBI", 0x5455, 5, 1, 1_700_000_000) + struct.pack("<HHBBIBI", 0x7875, 11, 1, 4, 0, 4, 0)

_PEAK = """
import re, sys
from pathlib import Path
from benchmarks.inspection import read_by_us, read_by_zipfile
def peak():  # not ru_maxrss, which a process inherits from the one that started it
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
idle = peak()
kept = {"ours": read_by_us, "zipfile": read_by_zipfile}[sys.argv[1]](Path(sys.argv[2]))
print(peak() - idle)
"""


def read_by_us(path: Path) -> object:
    with path.open("rb") as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        return inspect(read, path.stat().st_size, Limits(max_entries=2**31, max_directory_bytes=4 * GIB))


def read_by_zipfile(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        return archive


def main(pairs: int = 7, entries: int = 1_000_000) -> list[Report]:
    """Measure; about three minutes and 150 MiB of disk."""
    with tempfile.TemporaryDirectory(prefix="millrace-benchmark-") as folder:
        path = Path(folder) / "many.zip"
        path.write_bytes(_archive(entries))
        speed = Report("inspection", "entries/s", "2.0 or more", "higher")
        speed.pairs = alternate(
            pairs, lambda: _timed(read_by_us, path, entries), lambda: _timed(read_by_zipfile, path, entries)
        )
        ours, theirs = _peak("ours", path), _peak("zipfile", path)
        speed.extra = {
            "entries": entries,
            "memory_mib_above_idle": round(ours / MIB, 1),
            "memory_mib_above_idle_of_zipfile": round(theirs / MIB, 1),
            "memory_ratio (aim 0.3 or less)": round(ours / theirs, 2),
        }
        speed.show()
        path.write_bytes(_archive(entries // 5, "серия-%04d/срез-%07d.dcm", flags=0x0800, extra=_INFO_ZIP))
        everyday = Report("inspection-everyday", "entries/s", "2.0 or more", "higher")
        everyday.pairs = alternate(
            pairs, lambda: _timed(read_by_us, path, entries // 5), lambda: _timed(read_by_zipfile, path, entries // 5)
        )
        everyday.extra = {"entries": entries // 5, "what": "UT and ux extra fields, Cyrillic names marked as UTF-8"}
        everyday.show()

    sizes = Report("inspection-sizes", "ms", "0.9 to 1.1: 50 GiB take the time of 5 MiB", "lower")
    small, large = _Sparse(5 * MIB), _Sparse(50 * GIB)
    sizes.pairs = alternate(4 * pairs, large.timed, small.timed)
    sizes.extra = {"requests": [small.requests, large.requests], "bytes": [small.bytes, large.bytes]}
    sizes.show()
    return [speed, everyday, sizes]


def _timed(read: object, path: Path, entries: int) -> Run:
    cpu, began = time.process_time(), time.perf_counter()
    kept = read(path)  # type: ignore[operator]
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    del kept
    return Run(value=entries / seconds, cpu_seconds=cpu, units=entries / 1000)


def _peak(which: str, path: Path) -> int:
    """Bytes; Linux only."""
    run = subprocess.run([sys.executable, "-c", _PEAK, which, str(path)], check=True, capture_output=True, text=True)
    return int(run.stdout) * 1024


def _archive(entries: int, names: str = "series-%04d/slice-%07d.dcm", flags: int = 0, extra: bytes = b"") -> bytes:
    body, directory = bytearray(), bytearray()
    central = struct.Struct("<4sBBHHHIIIIHHHHHII")
    for index in range(entries):
        name = (names % (index // 500, index)).encode()
        head = (20, flags, 0, DOS_MOMENT, 0, 0, 0, len(name), 0)
        directory += central.pack(
            b"PK\x01\x02", 20, 3, 20, flags, 0, DOS_MOMENT, 0, 0, 0, len(name), len(extra), 0, 0, 0, 0o100644 << 16,
            len(body),
        )  # fmt: skip
        directory += name + extra
        body += struct.pack("<4sHHHIIIIHH", b"PK\x03\x04", *head) + name
    return bytes(body + directory) + _ends(entries, len(directory), len(body))


def _ends(entries: int, size: int, start: int) -> bytes:
    ends = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, start)
    ends += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    return ends + struct.pack("<4sHHHHIIH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


class _Sparse:
    """An archive of 20,000 entries and ``size`` bytes of which only the directory exists."""

    def __init__(self, size: int, entries: int = 20_000) -> None:
        spacing = 100
        filled = size - spacing * (entries - 1)
        wide = struct.pack("<HHQQ", 1, 16, filled, filled)
        members = [Member(name=b"%06d" % i, data=b"", offset=spacing * i) for i in range(entries - 1)]
        members.append(Member(name=b"filled", size=2**32 - 1, packed=2**32 - 1, offset=spacing * (entries - 1)))
        members[-1].extra = wide
        directory = b"".join(member.central(0) for member in members)
        self._start = spacing * (entries - 1) + 36 + filled
        self._part = directory + _ends(entries, len(directory), self._start)
        self.requests = self.bytes = 0

    def read(self, start: int, length: int) -> bytes:
        self.requests += 1
        self.bytes += length
        before = max(0, self._start - start)
        at = max(0, start - self._start)
        return bytes(min(before, length)) + self._part[at : at + max(0, length - before)]

    def timed(self) -> Run:
        self.requests = self.bytes = 0
        began = time.perf_counter()
        inspect(self.read, self._start + len(self._part), Limits(max_unpacked_bytes=2**40))
        return Run(value=(time.perf_counter() - began) * 1000)


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    main(options.pairs, options.entries)

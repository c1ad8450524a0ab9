"""What a step reports of its progress is counted, not guessed: entries, bytes, rows, and never more than there are."""

import io
import json
import zipfile
from uuid import uuid4

import pytest
import xlsxwriter

from domain.archives import inspect
from domain.archives.deep import compare_local_headers
from domain.pipelines import InputFile, JobInStep
from domain.results import parse
from storage import objects
from tests.own_settings import settings_of
from tests.unit.test_openapi import NEEDED
from workers import archives

Counts = list[tuple[int, int]]
ROWS = 1000


def archive(entries: int, size: int = 10) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as made:
        for number in range(entries):
            made.writestr(f"some/folder/with a long name/of an entry {number:06}.txt", b"x" * size)
    return whole.getvalue()


def check(counts: Counts, total: int) -> None:
    assert len(counts) > 1
    assert counts == sorted(counts)
    assert {of for _, of in counts} == {total}
    assert all(0 <= done <= total for done, _ in counts)


def test_entries_of_a_directory() -> None:
    data, counts = archive(10_000), Counts()
    inspect(
        lambda start, length: data[start : start + length], len(data), counted=lambda *so_far: counts.append(so_far)
    )
    check(counts, 10_000)
    assert counts[-1] == (10_000, 10_000)


def test_bytes_of_local_headers() -> None:
    data, counts = archive(40, 20_000), Counts()

    def read(start: int, length: int) -> bytes:
        return data[start : start + length]

    listing = inspect(read, len(data))
    compare_local_headers(read, len(data), listing, 100, counted=lambda *so_far: counts.append(so_far))
    check(counts, len(data))
    assert counts[-1][0] > 0.8 * len(data)


def csv() -> bytes:
    return b"path,score\n" + b"a.txt,0.5\n" * ROWS


def xlsx() -> bytes:
    whole = io.BytesIO()
    with xlsxwriter.Workbook(whole, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate([("path", "score"), *[("a.txt", 0.5)] * ROWS]):
            sheet.write_row(number, 0, row)
    return whole.getvalue()


def rows() -> bytes:
    return json.dumps([{"path": "a.txt", "score": 0.5}] * ROWS).encode()


@pytest.mark.parametrize(("make", "headers"), [(csv, 1), (xlsx, 1), (rows, 0)])
def test_rows_of_a_result(make: "type[csv]", headers: int) -> None:
    counts = Counts()
    parsed = parse(make(), counted=lambda *so_far: counts.append(so_far))
    assert parsed.summary.rows == ROWS
    check(counts, ROWS + headers)
    assert counts[-1][0] > 0.7 * ROWS


class Told:
    """A context that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def progress(
        self, done: float, total: float, message: str | None = None, *, part: tuple[int, int] = (1, 1)
    ) -> None:
        number, of = part
        assert 1 <= number <= of
        self.told.append(((number - 1 + done / total) / of, message or ""))

    def checkpoint(self) -> None: ...


def test_the_parts_of_an_inspection_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(4000, 100)
    monkeypatch.setattr(objects, "read_range", lambda key, start, length: data[start : start + length])
    file = InputFile(key="k", name="a.zip", size=len(data), content_type="application/zip", kind="zip")
    job = JobInStep(id=uuid4(), owner_id=uuid4(), kind="inference", step="inspect", attempt=1, params={}, file=file)
    context = Told()
    with settings_of({**NEEDED, "ARCHIVE_DEEP_READS": "1000"}):
        archives.inspect_archive(job, context)
    shares = [share for share, _ in context.told]
    assert shares == sorted(shares)
    assert shares[-1] <= 1
    words = [message for _, message in context.told]
    assert words[0].endswith("of 4000 entries")
    assert any(message.startswith("headers compared: ") for message in words)

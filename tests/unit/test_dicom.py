"""What an archive of DICOM is, by the first bytes of its members."""

import io
import random
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress

import pytest

from domain.archives import dicom, inspect
from tests.dicom_files import ROOT, dicom_file
from tests.unit.archive_corpus import Counted


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return target.getvalue()


def slices(data: bytes, limit: int = 1000) -> list[dicom.Slice | None]:
    members, _ = dicom.candidates(inspect(Counted(data), len(data)).entries, limit)
    return [dicom.read_slice(one, data[one.header_offset :][: one.head_bytes + dicom.HEAD_BYTES]) for one in members]


@pytest.mark.parametrize("method", [0, 8, 14])
def test_a_member_is_read_by_its_first_bytes_alone(method: int) -> None:
    pixels = random.Random(3).randbytes(200_000)
    data = zipped({"a.dcm": dicom_file(2, 5, 9, PixelData=pixels, NumberOfFrames=4)}, method)
    (found,) = slices(data)
    assert found == dicom.Slice(
        study_uid=f"{ROOT}.2",
        series_uid=f"{ROOT}.2.5",
        instance_uid=f"{ROOT}.2.5.9",
        modality="CT",
        body_part="CHEST",
        frames=4,
    )


@pytest.mark.parametrize("frames", [2**31 - 1, 100_001, 90_000])
def test_frames_that_a_file_cannot_hold_count_as_one(frames: int) -> None:
    (found,) = slices(zipped({"a.dcm": dicom_file(NumberOfFrames=frames, PixelData=bytes(100))}))
    assert found
    assert (found.frames, found.doubtful) == (1, True)


def test_a_bzip2_member_is_read_where_its_first_block_is_short() -> None:
    (found,) = slices(zipped({"a.dcm": dicom_file()}, 12))
    assert found
    assert found.modality == "CT"
    large = dicom_file(PixelData=random.Random(3).randbytes(200_000))
    assert slices(zipped({"a.dcm": large}, 12)) == [None]


def test_members_without_an_extension_are_tried_and_others_are_not() -> None:
    files = dict.fromkeys(["a.dcm", "b.DCM", "IM0001", "x/1.2.840.17", "report.pdf", "DICOMDIR", "c.txt"], b"x" * 200)
    data = zipped(files)
    members, total = dicom.candidates(inspect(Counted(data), len(data)).entries, 3)
    assert [one.name for one in members] == ["a.dcm", "b.DCM", "IM0001"]
    assert total == 4
    assert slices(data) == [None] * 4


def test_a_summary_counts_studies_series_and_slices_once() -> None:
    files = {f"{n}.dcm": dicom_file(1, n % 2, n) for n in range(6)} | {"again.dcm": dicom_file(1, 0, 0)}
    files |= {"other.dcm": dicom_file(2, 1, 1, Modality="MR", BodyPartExamined="HEAD")}
    found = [one for one in slices(zipped(files)) if one]
    summary = dicom.summarized(found, candidates=8, read=8, unreadable=0)
    assert summary
    assert (summary.studies, summary.series, summary.slices, summary.files) == (2, 3, 7, 7)
    assert (summary.modalities, summary.body_parts) == (["CT", "MR"], ["CHEST", "HEAD"])
    assert [one.slices for one in summary.by_series] == [3, 3, 1]
    assert summary.complete


def test_without_dicom_there_is_no_summary() -> None:
    assert dicom.summarized([], candidates=3, read=3, unreadable=0) is None


def test_a_hostile_header_is_read_or_raises_in_bounded_time() -> None:
    seed, rnd = dicom_file(), random.Random(11)
    for _ in range(300):
        data = bytearray(seed[:2000])
        for _ in range(rnd.randrange(1, 6)):
            data[rnd.randrange(132, len(data))] = rnd.randrange(256)
        with suppress(ValueError, TypeError, AttributeError, KeyError, NotImplementedError, EOFError, struct.error):
            slices(zipped({"a.dcm": bytes(data)}, 0))


def test_pydicom_is_loaded_only_when_there_is_dicom() -> None:
    program = "import sys, workers.archives; sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)

"""DICOM files as a scanner writes them, without patients and with few pixels."""

import io
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498"


def dicom_file(study: int = 1, series: int = 1, slice: int = 1, **more: Any) -> bytes:  # noqa: A002 the field's word
    """One CT image; ``more`` are elements by their keyword."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.{study}.{series}.{slice}"
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = f"{ROOT}.{study}.{series}.{slice}"
    data.StudyInstanceUID = f"{ROOT}.{study}"
    data.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    data.Modality = "CT"
    data.BodyPartExamined = "CHEST"
    data.PatientName = "Иванов^Иван"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.Rows = data.Columns = 256
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = bytes(range(256)) * 512
    for keyword, value in more.items():
        setattr(data, keyword, value)
    target = io.BytesIO()
    data.save_as(target, enforce_file_format=True)
    return target.getvalue()

"""Write a pydicom data set as a DICOM file."""

import warnings
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian


def header(**attributes: Any) -> Dataset:
    """Return a data set with attributes by keyword."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def content(header: Dataset) -> bytes:
    """Return a data set as the content of a file; values may break their VRs."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = header.get("SOPClassUID", "")
    meta.MediaStorageSOPInstanceUID = header.get("SOPInstanceUID", "")
    header.file_meta = meta
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()

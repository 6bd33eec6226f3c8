"""DICOM to JSON: the whole header of an object, without reading its bulk data.

>>> from dcm2bq.dicom import convert
>>> convert("scan.dcm").metadata["Modality"]
'CT'

`convert_within`, the budget of memory, the privacy rules and what tells DICOM from other content
by its first bytes are for the function and the tools.
"""

from dcm2bq.dicom.conversion import Conversion, convert, convert_within
from dcm2bq.dicom.memory import Budget, Claim, budget_of
from dcm2bq.dicom.privacy import check_attributes, deidentification_codes, privacy_rules
from dcm2bq.dicom.read.part10 import PREFIXED, has_prefix, looks_like_dicom
from dcm2bq.dicom.read.source import Source
from dcm2bq.errors import (
    ConfigError,
    Dcm2BqError,
    NotDicomError,
    ReadFailedError,
    UnlikeDicomError,
    UnreadableDicomError,
)

__all__ = [
    "PREFIXED",
    "Budget",
    "Claim",
    "ConfigError",
    "Conversion",
    "Dcm2BqError",
    "NotDicomError",
    "ReadFailedError",
    "Source",
    "UnlikeDicomError",
    "UnreadableDicomError",
    "budget_of",
    "check_attributes",
    "convert",
    "convert_within",
    "deidentification_codes",
    "has_prefix",
    "looks_like_dicom",
    "privacy_rules",
]

"""DICOM to JSON: the whole header of an object, without reading its bulk data.

>>> from dcm2bq.dicom import convert
>>> convert("scan.dcm").metadata["Modality"]
'CT'

`convert_within`, the budget of memory and the privacy rules are for the function and the tools.
"""

from dcm2bq.dicom.conversion import Conversion, convert, convert_within
from dcm2bq.dicom.memory import Budget, Claim, budget_of
from dcm2bq.dicom.privacy import check_attributes, privacy_rules
from dcm2bq.dicom.read.source import Source
from dcm2bq.errors import (
    ConfigError,
    Dcm2BqError,
    NotDicomError,
    ReadFailedError,
    UnreadableDicomError,
)

__all__ = [
    "Budget",
    "Claim",
    "ConfigError",
    "Conversion",
    "Dcm2BqError",
    "NotDicomError",
    "ReadFailedError",
    "Source",
    "UnreadableDicomError",
    "budget_of",
    "check_attributes",
    "convert",
    "convert_within",
    "privacy_rules",
]

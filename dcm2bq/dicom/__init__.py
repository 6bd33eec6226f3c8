"""DICOM to JSON: the whole header of an object, read without its bulk values."""

from dcm2bq.dicom.conversion import Conversion, convert
from dcm2bq.dicom.privacy import privacy_rules
from dcm2bq.dicom.source import Source

__all__ = ["Conversion", "Source", "convert", "privacy_rules"]

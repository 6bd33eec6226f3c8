"""DICOM to JSON: the whole header of an object, read without its bulk values."""

from dcm2bq.dicom.conversion import Conversion, convert
from dcm2bq.dicom.memory import Budget, Claim, budget_of
from dcm2bq.dicom.privacy import privacy_rules
from dcm2bq.dicom.read.source import Source

__all__ = ["Budget", "Claim", "Conversion", "Source", "budget_of", "convert", "privacy_rules"]

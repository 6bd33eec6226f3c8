"""Remove attributes or replace them with pseudonyms: the options `privacy.*` (PS3.15 Annex E)."""

from dcm2bq.dicom.privacy.profile import deidentification_codes
from dcm2bq.dicom.privacy.rules import check_attributes, privacy_rules

__all__ = ["check_attributes", "deidentification_codes", "privacy_rules"]

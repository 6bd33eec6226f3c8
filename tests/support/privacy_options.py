"""The privacy profile with all options that research would choose, and a key."""

from typing import Any

KEY = "a key that is long enough"
OPTIONS = (
    "retainLongitudinalModifiedDates",
    "retainDeviceIdentity",
    "retainInstitutionIdentity",
    "retainPatientCharacteristics",
    "retainSafePrivate",
    "cleanStructuredContent",
    "cleanDescriptors",
)
"""All but `retainUids`, as UIDs contain dates, and `retainLongitudinalFullDates`."""
PROFILE_WITH_OPTIONS: dict[str, Any] = {
    "profile": "basic",
    "options": list(OPTIONS),
    "keptDescriptors": ["E+1"],
}

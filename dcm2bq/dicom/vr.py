"""The Value Representations of the standard, and how a code is recognised as one (PS3.5 6.2)."""

SHORT_VRS = {
    vr.encode(): vr
    for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905
}
"""Code to VR, for the VRs whose explicit header has a 2-byte length (PS3.5 Table 7.1-2)."""
LONG_VRS = {vr.encode(): vr for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}  # noqa: SIM905
"""The same for the VRs with 2 reserved bytes and a 4-byte length (PS3.5 Table 7.1-1)."""
VRS = frozenset(SHORT_VRS.values()) | frozenset(LONG_VRS.values())
"""All VRs of the standard."""
BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""VRs of bulk data, which JSON can only hold as base64."""
FRAGMENTED_VRS = BINARY_VRS - {"UN"}
"""A value of undefined length is fragments for these VRs, items for others (PS3.5 A.4, 6.2.2)."""


def is_vr(code: bytes) -> bool:
    """Return whether two bytes are a VR of the standard."""
    return code in SHORT_VRS or code in LONG_VRS


def is_vr_like(code: bytes) -> bool:
    """Return whether two bytes could be a VR, if not of this edition of the standard."""
    return len(code) == 2 and code.isalpha() and code.isupper()  # noqa: PLR2004

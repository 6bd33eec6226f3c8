"""Value Representations: their sets, and how they are recognised (PS3.5 6.2)."""

SHORT_VRS = {
    vr.encode(): vr
    for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905
}
"""VRs whose explicit header has a length of 2 bytes (PS3.5 Table 7.1-2)."""
LONG_VRS = {vr.encode(): vr for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}  # noqa: SIM905
"""VRs whose explicit header has 2 reserved bytes and a length of 4 bytes (PS3.5 Table 7.1-1)."""
VRS = frozenset(SHORT_VRS.values()) | frozenset(LONG_VRS.values())
"""The VRs of the standard."""
BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
FRAGMENTED_VRS = BINARY_VRS - {"UN"}
"""Values of these VRs consist of fragments if their length is undefined (PS3.5 A.4)."""


def is_vr(code: bytes) -> bool:
    """Return whether two bytes are a VR of the standard."""
    return code in SHORT_VRS or code in LONG_VRS


def is_vr_like(code: bytes) -> bool:
    """Return whether two bytes could be a VR, be it one that is not known."""
    return len(code) == 2 and code.isalpha() and code.isupper()  # noqa: PLR2004

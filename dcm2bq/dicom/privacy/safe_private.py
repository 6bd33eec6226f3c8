"""The private elements that identify nobody: Table E.3.10-1 of PS3.15."""

from functools import cache
from importlib import resources

from dcm2bq.dicom.dictionary import CREATOR_LAST, normalized_creator

_FILE = "safe_private.tsv"


def safe_vr(tag: int, creator: str) -> str | None:
    """Return the VR of a private element in a block of `creator`; None if it is not listed.

    The VR of a listed creator's own element is LO; some elements are listed without a VR: "".
    Creators are compared like those of the dictionary, without regard to case and blanks.

    >>> safe_vr(0x0019100C, "SIEMENS MR HEADER"), safe_vr(0x00191008, "SIEMENS MR HEADER")
    ('IS', None)
    """
    name, group, number = normalized_creator(creator), tag >> 16, tag & 0xFFFF
    if number <= CREATOR_LAST:
        return "LO" if (name, group) in _blocks() else None
    return _elements().get((name, group, number & 0xFF))


@cache
def _elements() -> dict[tuple[str, int, int], str]:
    """Return the VRs of the table by creator, group and element number within the block."""
    text = resources.files(__package__).joinpath(_FILE).read_text()
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {
        (normalized_creator(creator), int(group, 16), int(element, 16)): "".join(vr)
        for creator, group, element, *vr in lines[1:]
    }


@cache
def _blocks() -> frozenset[tuple[str, int]]:
    """Return the creators that have listed elements, each with a group of these."""
    return frozenset((creator, group) for creator, group, _ in _elements())

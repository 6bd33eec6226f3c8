"""What SOP classes are called (PS3.6 A), and which have pixel data (PS3.3 A.1.4, PS3.4 B.5)."""

from functools import lru_cache

from pydicom._uid_dict import UID_dictionary

_SOP_CLASS = "SOP Class"
_IMAGE = "Image"
_OTHER_IMAGES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.6.2",  # Enhanced US Volume
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
        "1.2.840.10008.5.1.4.1.1.77.1.5.8",  # Ophthalmic OCT B-scan Volume Analysis
        "1.2.840.10008.5.1.4.1.1.81.1",  # Ophthalmic Thickness Map
        "1.2.840.10008.5.1.4.1.1.82.1",  # Corneal Topography Map
        "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
        "1.2.840.10008.5.1.4.1.1.501.4",  # DICOS 2D AIT
        "1.2.840.10008.5.1.4.1.1.501.5",  # DICOS 3D AIT
    }
)
"""Storage classes with an Image Pixel Module whose names do not contain `Image`."""


@lru_cache(maxsize=256)
def may_have_pixels(sop_class: str | None) -> bool:
    """Return whether objects of a SOP class have pixel data; True for an unknown class.

    The attribute Rows is not enough: MR Spectroscopy has it (PS3.3 C.8.14.1), and any object may
    have attributes beyond its IOD (PS3.4 B.4.1, Standard Extended SOP Classes).
    """
    name, kind = UID_dictionary.get(sop_class or "", ("", ""))[:2]
    return kind != _SOP_CLASS or _IMAGE in name or sop_class in _OTHER_IMAGES


def uid_name(uid: str) -> str | None:
    """Return the name of a well-known UID, such as `CT Image Storage`; None for any other."""
    return UID_dictionary[uid][0] if uid in UID_dictionary else None

"""Which objects have a warning if they have Rows but no pixel data."""

import pytest
from pydicom import uid
from pydicom._uid_dict import UID_dictionary

from dcm2bq.dicom.sop_classes import _OTHER_IMAGES, may_have_pixels
from tests.dicom.build import (
    converted,
    dicom,
    element,
    warned,
)

ROWS = element(0x00280010, "US", b"\2\0")


def is_warned_of(sop_class: str) -> bool:
    elements = (element(0x00080016, "UI", sop_class), element(0x00080018, "UI", "1.2.3"), ROWS)
    return any("Rows without pixel data" in line for line in warned(*elements))


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.MRSpectroscopyStorage,
        uid.RawDataStorage,
        uid.BasicTextSRStorage,
        uid.KeyObjectSelectionDocumentStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.TwelveLeadECGWaveformStorage,
        uid.EncapsulatedPDFStorage,
        uid.RTStructureSetStorage,
        uid.RTPlanStorage,
        uid.SpatialRegistrationStorage,
        uid.SurfaceSegmentationStorage,
        uid.CTDefinedProcedureProtocolStorage,
        uid.MediaStorageDirectoryStorage,
    ],
)
def test_an_object_whose_iod_has_no_pixels_may_have_rows(sop_class: str) -> None:
    assert not is_warned_of(sop_class)


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.CTImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.EnhancedUSVolumeStorage,
        uid.ParametricMapStorage,
        uid.SegmentationStorage,
        uid.RTDoseStorage,
        uid.CornealTopographyMapStorage,
        uid.OphthalmicThicknessMapStorage,
        uid.RTImageStorage,
        "1.2.3.4.5",
        uid.ExplicitVRLittleEndian,
    ],
)
def test_an_image_without_pixel_data_has_a_warning(sop_class: str) -> None:
    """So has an object of an unknown class: it may be cut."""
    assert is_warned_of(sop_class)


def test_an_object_without_a_sop_class_has_a_warning() -> None:
    lines = converted(dicom(ROWS)).warnings
    assert any("Rows without pixel data" in line for line in lines)


def test_the_listed_classes_are_in_the_standard_and_have_no_image_in_their_names() -> None:
    known = [image for image in _OTHER_IMAGES if image in UID_dictionary]
    assert len(known) >= 9
    assert not any("Image" in UID_dictionary[uid][0] for uid in known)
    assert all(may_have_pixels(uid) for uid in known)

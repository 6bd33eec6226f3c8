"""CT, MR and PET series: regular ones, and one for each defect, named by it."""

import random
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.support.dicom_made.part10 import content, header

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
PET = "1.2.840.10008.5.1.4.1.1.128"
AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL = [0, 1, 0, 0, 0, -1]
TILTED = [1, 0, 0, 0, 0.939693, -0.34202]
"""Turned by 20 degrees about the patient's left-right axis."""
THINNED = 12
"""How many series have slices taken out at random."""
_UNREADABLE = b"-77777.7"
"""Written in place of `_READS`, which pydicom refuses to write."""
_READS = {"unreadable position": b"unknown.", "position that is not a number": b"NaN     "}

type Slices = list[Dataset]


def uid(*names: object) -> str:
    """Return a UID that depends on the names only."""
    return generate_uid(entropy_srcs=[str(name) for name in names])


def stack(
    name: str,
    positions: Sequence[float],
    orientation: Sequence[float] = AXIAL,
    sop_class: str = CT,
    modality: str = "CT",
) -> Slices:
    """Return a slice for each position, which is in mm along the normal of the orientation."""
    normal = _normal(orientation)
    return [
        header(
            SOPClassUID=sop_class,
            SOPInstanceUID=uid(name, number),
            StudyInstanceUID=uid(name, "study"),
            SeriesInstanceUID=uid(name, "series"),
            Modality=modality,
            PatientID=f"series {name}"[:64],
            ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            InstanceNumber=number,
            Rows=4,
            Columns=4,
            PixelSpacing=[0.7, 0.7],
            ImageOrientationPatient=list(orientation),
            ImagePositionPatient=[round(-10 + position * axis, 6) for axis in normal],
            BurnedInAnnotation="NO",
            Manufacturer="Acme",
        )
        for number, position in enumerate(positions, start=1)
    ]


def _normal(orientation: Sequence[float]) -> list[float]:
    rx, ry, rz, cx, cy, cz = orientation
    return [ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx]


def evenly(count: int, spacing: float = 2.5) -> list[float]:
    return [number * spacing for number in range(count)]


def _positioned() -> Iterator[tuple[str, Slices]]:
    """Yield series that differ in the positions of their slices."""
    yield "regular", stack("regular", evenly(6))
    yield "reversed order", stack("reversed order", evenly(6)[::-1])
    yield "sagittal MR", stack("sagittal MR", evenly(5, 3.3), SAGITTAL, MR, "MR")
    yield "tilted but straight", stack("tilted but straight", evenly(5, 1.25), TILTED)
    yield "PET", stack("PET", evenly(4, 3.27), sop_class=PET, modality="PT")
    yield "missing slice", stack("missing slice", [0, 2.5, 5, 10, 12.5])
    yield "every other slice missing", stack("every other", [0, 2.5, 7.5, 12.5, 17.5])
    yield "uneven spacing", stack("uneven spacing", [0, 2.5, 5, 8.2, 10.7])
    yield "one slice", stack("one slice", [0])
    yield "phases", stack("phases", [*evenly(4), *evenly(4)], sop_class=MR, modality="MR")
    yield "duplicate position", stack("duplicate position", [0, 2.5, 2.5, 5, 7.5])
    yield "almost duplicate position", stack("almost duplicate", [0, 2.5, 2.504, 5, 7.5])


def _misaligned() -> Iterator[tuple[str, Slices]]:
    """Yield series that are shifted, turned, or mixed."""
    slices = stack("lateral drift", evenly(5))
    for number, each in enumerate(slices):
        each.ImagePositionPatient[0] += number * 0.05
    yield "lateral drift", slices

    slices = stack("gantry tilt", evenly(5))
    for number, each in enumerate(slices):
        each.GantryDetectorTilt = 15
        each.ImagePositionPatient[1] += number * 0.67
    yield "gantry tilt", slices

    slices = stack("mixed orientation", evenly(5))
    slices[2].ImageOrientationPatient = SAGITTAL
    yield "mixed orientation", slices

    slices = stack("mixed pixel spacing", evenly(5))
    slices[1].PixelSpacing = [0.8, 0.8]
    yield "mixed pixel spacing", slices

    slices = stack("mixed matrix", evenly(5))
    slices[4].Rows = 8
    yield "mixed matrix", slices

    slices = stack("not orthogonal", evenly(4))
    for each in slices:
        each.ImageOrientationPatient = [1, 0, 0, 0.2, 0.979796, 0]
    yield "not orthogonal", slices


def _odd() -> Iterator[tuple[str, Slices]]:
    """Yield series with localizers, with values that are absent or broken, and with arrays."""
    slices = stack("localizer inside", [*evenly(5), 100])
    slices[5].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    slices[5].ImageOrientationPatient = SAGITTAL
    yield "localizer inside", slices

    slices = stack("only localizers", evenly(2))
    for each in slices:
        each.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    yield "only localizers", slices

    for name in _READS:
        slices = stack(name, evenly(5))
        slices[2].ImagePositionPatient = [float(_UNREADABLE)] * 3
        yield name, slices

    slices = stack("position of enormous numbers", evenly(5))
    slices[2].ImagePositionPatient = [1e200, -1e200, 1e300]
    slices[2].ImageOrientationPatient = [1e300] * 6
    yield "position of enormous numbers", slices

    # The gaps would be 0.08 mm and 10^18 mm: more missing slices than an INT64 can count.
    slices = stack("along enormous directions", [0, 1e-13, 2e-13, 1e6])
    for each in slices:
        each.ImageOrientationPatient = [9e5, 0, 0, 0, 9e5, 0]
    yield "position along enormous directions", slices

    slices = stack("empty position", evenly(5))
    slices[2].ImagePositionPatient = None
    yield "empty position", slices

    slices = stack("no position", evenly(3))
    for each in slices:
        del each.ImagePositionPatient
    yield "no position", slices

    slices = stack("single values and arrays", evenly(4))
    slices[1].ImageType = "ORIGINAL"
    slices[2].PixelSpacing = 0.7  # DICOM requires two values
    slices[3].Rows = [4, 4]  # and one value here
    yield "single values and arrays", slices


def _multi_frame() -> Iterator[tuple[str, Slices]]:
    """Yield series of one object."""
    yield "enhanced", [_enhanced("enhanced", evenly(6))]
    yield "enhanced missing slice", [_enhanced("enhanced missing", [0, 2.5, 7.5, 10])]
    slices = [_enhanced("enhanced own groups", evenly(3))]
    shared = slices[0].SharedFunctionalGroupsSequence[0]
    for frame in slices[0].PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    slices[0].SharedFunctionalGroupsSequence = []
    yield "enhanced own groups", slices
    slices = [_enhanced("enhanced empty", [])]
    yield "enhanced without frames", slices


def _enhanced(name: str, positions: Sequence[float]) -> Dataset:
    """Return an Enhanced CT object with a frame for each position (PS3.3 C.7.6.16)."""
    (made,) = stack(name, [0], sop_class=ENHANCED_CT)
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(made, keyword)
    made.NumberOfFrames = len(positions)
    made.SharedFunctionalGroupsSequence = [
        header(
            PixelMeasuresSequence=[
                header(PixelSpacing=[0.7, 0.7], SliceThickness=2.5, SpacingBetweenSlices=2.5)
            ],
            PlaneOrientationSequence=[header(ImageOrientationPatient=AXIAL)],
            CTXRayDetailsSequence=[header(KVP=120)],
            CTExposureSequence=[header(XRayTubeCurrentInmA=250.5, CTDIvol=7.5)],
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        header(PlanePositionSequence=[header(ImagePositionPatient=[-10, -10, position])])
        for position in positions
    ]
    return made


def thinned(number: int) -> tuple[list[float], int]:
    """Return the positions that are left of a series, and how many were taken out."""
    chance = random.Random(number)
    positions = evenly(chance.randint(8, 16), chance.choice([0.625, 1.0, 2.5, 3.3]))
    removed = set(chance.sample(range(1, len(positions) - 1), chance.randint(1, 5)))
    kept = [position for index, position in enumerate(positions) if index not in removed]
    if all(b - a > 1.5 * positions[1] for a, b in pairwise(kept)):
        return thinned(number + THINNED)  # no neighbours are left that would show the spacing
    return kept, len(removed)


def files() -> Iterator[tuple[str, bytes]]:
    """Yield each object as `series/DEFECT/NUMBER.dcm`; one series is stored twice."""
    for number in range(THINNED):
        name = f"thinned {number}"
        for position, each in enumerate(stack(name, thinned(number)[0])):
            yield f"series/{name}/{position}.dcm", content(each)
    for name, slices in chain(_positioned(), _misaligned(), _odd(), _multi_frame()):
        for number, each in enumerate(slices):
            made = content(each).replace(_UNREADABLE, _READS.get(name, _UNREADABLE))
            yield f"series/{name}/{number}.dcm", made
            if name == "regular":
                yield f"series/copy of {name}/{number}.dcm", made

"""Conversion, from a stream to JSON text: ours against the usual way, in the same run.

The usual way is pydicom's: `dcmread`, `to_json_dict`, `json.dumps`. Ours is measured without
privacy options, under the Basic Profile, and under the profile with its options. Times are CPU's,
the best of all by turns: what other programs on the machine take away comes on top of them.
"""

import argparse
import io
import json
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
)

from dcm2bq import dicom
from dcm2bq.config import Config, from_overrides
from tests.support.privacy_options import KEY, PROFILE_WITH_OPTIONS

FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "test-SR.dcm",
    "liver_1frame.dcm",
    "waveform_ecg.dcm",
)
FRAMES = 2000
COORDINATES = 100_000
CONTOUR = 300
ROUNDS = 5


OFF = Config()
BASIC = from_overrides({"privacy": {"profile": "basic"}})
WITH_OPTIONS = from_overrides({"privacy": PROFILE_WITH_OPTIONS})


def ours(content: bytes, config: Config = OFF) -> str:
    """Convert with dcm2bq."""
    return dicom.convert(io.BytesIO(content), config).text


def usual(content: bytes) -> str:
    """Convert the usual way; as there, bulk data is left out of the JSON."""
    data = pydicom.dcmread(io.BytesIO(content))
    return json.dumps(data.to_json_dict(bulk_data_element_handler=lambda _: "bulk"))


def enhanced_ct(frames: int = FRAMES) -> bytes:
    """Return an enhanced multi-frame CT whose functional groups are those of real scanners."""
    data = _object(EnhancedCTImageStorage, "CT")
    data.Rows = data.Columns = 16
    data.NumberOfFrames = frames
    data.PerFrameFunctionalGroupsSequence = Sequence(_frame(number) for number in range(frames))
    data.add_new(0x7FE00010, "OW", bytes(512 * frames))
    return _written(data)


def structure_set(coordinates: int = COORDINATES) -> bytes:
    """Return an RTSTRUCT whose coordinates have as many digits as planning systems write."""
    numbers = random.Random(1)
    contours = []
    for _ in range(0, coordinates, CONTOUR):
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = CONTOUR // 3
        contour.ContourData = [f"{numbers.uniform(-250, 250):.6f}" for _ in range(CONTOUR)]
        contours.append(contour)
    roi = Dataset()
    roi.ReferencedROINumber = 1
    roi.ContourSequence = Sequence(contours)
    data = _object(RTStructureSetStorage, "RTSTRUCT")
    data.ROIContourSequence = Sequence([roi])
    return _written(data)


def _object(sop_class: UID, modality: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID("1.2.3.4")
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.5"
    data.PatientName, data.PatientID, data.Modality = "Doe^Jane", "1", modality
    return data


def _written(data: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def _frame(number: int) -> Dataset:
    content = Dataset()
    content.FrameAcquisitionDateTime = "20260101120000.000"
    content.FrameReferenceDateTime = "20260101120000.000"
    content.FrameAcquisitionDuration = 500.0
    content.DimensionIndexValues = [1, number + 1]
    content.StackID = "1"
    content.InStackPositionNumber = number + 1
    position = Dataset()
    position.ImagePositionPatient = [-150.5, -150.5, number * 0.625]
    orientation = Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.586, 0.586], 0.625
    transformation = Dataset()
    transformation.RescaleIntercept, transformation.RescaleSlope = -1024, 1
    transformation.RescaleType = "HU"
    exposure = Dataset()
    exposure.ExposureTimeInms, exposure.XRayTubeCurrentInmA = 500.0, 200.0
    exposure.ExposureInmAs, exposure.CTDIvol = 100.0, 9.5
    reference = Dataset()
    reference.ReferencedSOPClassUID = CTImageStorage
    reference.ReferencedSOPInstanceUID = f"1.2.3.6.{number}"
    derivation = Dataset()
    derivation.SourceImageSequence = Sequence([reference])
    frame = Dataset()
    frame.FrameContentSequence = Sequence([content])
    frame.PlanePositionSequence = Sequence([position])
    frame.PlaneOrientationSequence = Sequence([orientation])
    frame.PixelMeasuresSequence = Sequence([measures])
    frame.PixelValueTransformationSequence = Sequence([transformation])
    frame.CTExposureSequence = Sequence([exposure])
    frame.DerivationImageSequence = Sequence([derivation])
    return frame


def inputs() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file."""
    for name in FILES:
        path = get_testdata_file(name)
        assert path is not None, name
        with open(str(path), "rb") as file:  # noqa: PTH123
            yield name, file.read()
    yield f"enhanced CT, {FRAMES:,} frames", enhanced_ct()
    yield f"RTSTRUCT, {COORDINATES:,} coordinates", structure_set()


def fastest(function: Callable[[bytes], str], content: bytes, seconds: float) -> float:
    """Return the CPU seconds of the fastest of the conversions that fit into `seconds`."""
    best, give_up = math.inf, time.perf_counter() + seconds
    while True:
        start = time.process_time()
        function(content)
        best = min(best, time.process_time() - start)
        if time.perf_counter() > give_up:
            return best


WAYS: dict[str, Callable[[bytes], str]] = {
    "usual_us": usual,
    "ours_us": ours,
    "basic_us": partial(ours, config=BASIC),
    "options_us": partial(ours, config=WITH_OPTIONS),
}


def measure(content: bytes, seconds: float) -> dict[str, float]:
    """Return the best time of each way in microseconds, and the ratio, after about `seconds`."""
    turn = seconds / ROUNDS / len(WAYS)
    best = dict.fromkeys(WAYS, math.inf)
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            best[name] = min(best[name], fastest(way, content, turn) * 1e6)
    return {**best, "ratio": best["usual_us"] / best["ours_us"]}


def main() -> None:
    """Measure every file and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=6.0, help="about how long for each file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # pydicom's, about the files
    os.environ[OFF.privacy.hash_key_variable] = KEY
    results = {name: measure(content, arguments.seconds) for name, content in inputs()}
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("| file | pydicom, µs | dcm2bq, µs | times as fast |")
    print("|---|---:|---:|---:|")
    for name, row in results.items():
        print(f"| {name} | {row['usual_us']:,.0f} | {row['ours_us']:,.0f} | {row['ratio']:.1f} |")
    print("\n| file | without privacy options, µs | Basic Profile, µs | with its options, µs |")
    print("|---|---:|---:|---:|")
    for name, row in results.items():
        times = " | ".join(f"{row[way]:,.0f}" for way in ("ours_us", "basic_us", "options_us"))
        print(f"| {name} | {times} |")


if __name__ == "__main__":
    main()

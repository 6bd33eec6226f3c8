"""Conversions run in many threads at once, as the events of the function do."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from pydicom.data import get_testdata_file

from dcm2bq.dicom import convert

NAMES = ("CT_small.dcm", "rtplan.dcm", "test-SR.dcm", "image_dfl.dcm", "JPEG2000.dcm")


def test_concurrent_conversions_give_the_same_results_as_single_ones() -> None:
    files = [Path(str(get_testdata_file(name))).read_bytes() for name in NAMES]
    alone = [convert(BytesIO(content)) for content in files]

    def work(number: int) -> bool:
        return convert(BytesIO(files[number % len(files)])) == alone[number % len(files)]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(400)))

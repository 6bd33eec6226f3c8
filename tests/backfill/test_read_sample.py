"""A sample shows how much of an object is read to convert it."""

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from dcm2bq.config import Config
from dcm2bq.gcs.store import Store
from dcm2bq.local.bucket import Bucket
from dcm2bq.tools.backfill.read_sample import UNMEASURED, measure
from tests.support.backfill_site import CT_SMALL
from tests.support.function_stack import unique

COMPRESSED = Path(str(get_testdata_file("J2K_pixelrep_mismatch.dcm"))).read_bytes()


def test_reads_and_bytes_are_those_of_the_conversion(
    storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(storage_url, unique("sample-"), connections=4)
    bucket.create()
    bucket.upload("native.dcm", CT_SMALL)
    bucket.upload("compressed.dcm", COMPRESSED)
    bucket.upload("bad.dcm", b"not DICOM" * 10_000)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    stored = {each.name: each for each in Store(Config()).list(bucket.name)}
    assert measure(Config(), []) is UNMEASURED
    native = measure(Config(), [stored["native.dcm"]])
    assert (native.sampled, native.reads, native.factor) == (1, 1.0, 1.0)
    bad = measure(Config(), [stored["bad.dcm"]])
    assert (bad.sampled, bad.reads, bad.factor) == (1, 1.0, 1.0)
    assert len(COMPRESSED) > 64 * 1024
    compressed = measure(Config(), [stored["compressed.dcm"]])
    assert compressed.reads == 2.0
    assert compressed.factor == pytest.approx(len(COMPRESSED) / 65536, rel=0.1)
    assert measure(Config(), stored.values()).reads == pytest.approx(4 / 3)
    bucket.delete("native.dcm")
    assert measure(Config(), [stored["native.dcm"]]) is UNMEASURED

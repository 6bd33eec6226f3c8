"""The objects that all tests of the analysis views read, and their rows by the real converter.

They are those of `dicom_made`, pydicom's own samples, and the folder that DCM2BQ_CORPUS names.
"""

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path

import google_crc32c
import pydicom
from pydicom.dataset import Dataset

from dcm2bq import rows
from dcm2bq.dicom import Conversion, convert
from dcm2bq.errors import RejectedEventError
from dcm2bq.events import EventKind, ObjectEvent
from dcm2bq.rows import InstanceRow
from dcm2bq.stored_object import StoredObject
from tests.support import dicom_made

BUCKET = "analysis"
_PYDICOM = Path(pydicom.__file__).parent / "data"
_CORPUS = Path(os.environ.get("DCM2BQ_CORPUS", os.devnull))
_INGESTED_AT = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class AnalysisObject:
    """A file in the bucket; `name` begins with `pydicom/`, `corpus/` or its made subject."""

    name: str
    content: bytes

    @property
    def path(self) -> str:
        """The object's `gs://` URI."""
        return f"gs://{BUCKET}/{self.name}"

    @cached_property
    def header(self) -> Dataset:
        """The header as pydicom reads it."""
        return pydicom.dcmread(BytesIO(self.content), stop_before_pixels=True, force=True)

    @cached_property
    def conversion(self) -> Conversion:
        """The header as the product converts it."""
        return convert(self.content)

    @property
    def row(self) -> InstanceRow:
        """The row of `instances`, as the function makes it from a `finalized` event."""
        crc32c = google_crc32c.value(self.content).to_bytes(4, "big")
        stored = StoredObject(
            bucket=BUCKET,
            name=self.name,
            generation=1,
            size=len(self.content),
            storage_class="STANDARD",
            md5_hash=base64.b64encode(hashlib.md5(self.content).digest()).decode(),
            crc32c=base64.b64encode(crc32c).decode(),
        )
        event = ObjectEvent(
            event_id="1", kind=EventKind.FINALIZED, time=_INGESTED_AT, object=stored
        )
        info = rows.info(
            event,
            bytes_read=len(self.content),
            transfer_syntax_uid=self.conversion.transfer_syntax_uid,
            warnings=self.conversion.warnings,
            dropped_tags=self.conversion.dropped_tags,
        )
        return rows.instance_row(
            event,
            now=_INGESTED_AT,
            info=info,
            columns=self.conversion.columns,
            metadata=self.conversion.text,
        )


def made_objects(prefix: str = "") -> tuple[AnalysisObject, ...]:
    """Return the made objects whose names begin with `prefix`."""
    return tuple(each for each in _made_objects() if each.name.startswith(prefix))


@cache
def _made_objects() -> tuple[AnalysisObject, ...]:
    return tuple(AnalysisObject(name, content) for name, content in dicom_made.files())


@cache
def published_objects() -> tuple[AnalysisObject, ...]:
    """Return the objects that are the same on every machine: the made ones and pydicom's."""
    return (*made_objects(), *_convertible("pydicom", _PYDICOM))


@cache
def all_objects() -> tuple[AnalysisObject, ...]:
    """Return every object that the product can convert."""
    return (*published_objects(), *_convertible("corpus", _CORPUS))


def _convertible(place: str, folder: Path) -> Iterator[AnalysisObject]:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = f"{place}/{file.relative_to(folder).as_posix()}"
        candidate = AnalysisObject(name, file.read_bytes())
        with suppress(RejectedEventError):
            assert candidate.conversion
            yield candidate

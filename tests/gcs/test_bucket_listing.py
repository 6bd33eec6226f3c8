"""Every file read by ranged requests gives the same result as read whole."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest

from dcm2bq import config
from dcm2bq.deadline import Deadline
from dcm2bq.dicom import Conversion, convert
from dcm2bq.errors import RejectedEventError
from dcm2bq.gcs.store import Store
from dcm2bq.stored_object import StoredObject
from tests.support.http_server import Exchange, serving
from tests.support.sparse import encapsulated

BUNDLED = Path(pydicom.data.__file__).parent
FOLDERS = [BUNDLED, Path(os.environ.get("DCM2BQ_CORPUS", os.devnull))]
FILES = sorted(
    path
    for folder in FOLDERS
    for path in folder.rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc", ".json", ".md"}
)
SYNTHETIC = {
    f"{fragments} fragments, table: {table}": encapsulated(2**20, fragments, table)
    for fragments in (1, 10, 1000)
    for table in ("none", "basic", "extended")
}


class Content:
    """Serves the content of the test by ranges."""

    def __init__(self) -> None:
        self.content = b""

    def serve(self, exchange: Exchange) -> None:
        first, last = map(int, exchange.headers["Range"].removeprefix("bytes=").split("-"))
        where = f"bytes {first}-{last}/{len(self.content)}"
        exchange.answer(206, self.content[first : last + 1], {"Content-Range": where})


@pytest.fixture(scope="module")
def served() -> Content:
    return Content()


@pytest.fixture(scope="module")
def store(served: Content) -> Iterator[Store]:
    with serving(served.serve) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        yield Store(config.Config())


def outcome(source: object, hops: int) -> Conversion | str:
    """Return the conversion, or the reason why it was refused."""
    try:
        return convert(source, {"limits": {"hops": hops}})  # type: ignore[arg-type]
    except RejectedEventError as error:
        return f"{type(error).__name__}: {error}"


def check(store: Store, served: Content, content: bytes, hops: int = 16) -> None:
    served.content = content
    stored = StoredObject(bucket="scans", name="a.dcm", generation=1, size=len(content))
    reader = store.open(stored, Deadline.after(60))
    ranged, whole = outcome(reader, hops), outcome(BytesIO(content), hops=10**6)
    if ranged != whole:
        assert isinstance(ranged, Conversion)
        assert any("inferred" in warning for warning in ranged.warnings)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_read_by_ranges_gives_the_same_result(
    store: Store, served: Content, path: Path
) -> None:
    check(store, served, path.read_bytes())


@pytest.mark.parametrize("hops", [0, 16])
@pytest.mark.parametrize("name", SYNTHETIC)
def test_an_encapsulated_object_read_by_ranges_gives_the_same_result(
    store: Store, served: Content, name: str, hops: int
) -> None:
    source = SYNTHETIC[name]
    check(store, served, source.read_at(0, source.size), hops)

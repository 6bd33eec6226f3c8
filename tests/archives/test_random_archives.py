"""Random archives are read as they were written, and mutated ones fail within their bounds."""

import gzip
import io
import random
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcm2bq.archives import members
from dcm2bq.dicom.read.source import Source
from dcm2bq.errors import RejectedEventError
from tests.archives.reading import contents, limits_of
from tests.archives.test_tar_members import sparse, tarred
from tests.archives.test_zip_members import zipped
from tests.support.slices import Pieces

MIB = 1024 * 1024
WRITERS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "stored.zip": lambda files: zipped(files, zipfile.ZIP_STORED, b"comment"),
    "deflated.zip": zipped,
    "gnu.tar": lambda files: tarred(files, format=tarfile.GNU_FORMAT),
    "pax.tar": lambda files: tarred(files, format=tarfile.PAX_FORMAT),
    "pax.tar.gz": lambda files: gzip.compress(tarred(files, format=tarfile.PAX_FORMAT), 1),
}
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
SIZES = st.integers(0, 300) | st.integers(60_000, 150_000)


@st.composite
def files(draw: st.DrawFn) -> dict[str, bytes]:
    sizes = draw(st.dictionaries(NAMES.filter(lambda name: name[-1] != "/"), SIZES, max_size=8))
    noise = random.Random(draw(st.integers(0, 99)))
    return {name: noise.randbytes(size) for name, size in sizes.items()}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=25)
@given(files=files())
def test_every_file_is_read_as_it_was_written(name: str, files: dict[str, bytes]) -> None:
    expected = {
        name: content
        for name, content in files.items()
        if content and not name.startswith("__MACOSX/")
    }
    assert contents(WRITERS[name](files), name) == expected


def odd_archives() -> dict[str, bytes]:
    """Return archives with every structure that is parsed."""
    files = {f"{'folder/' * 20}{n}": bytes([n]) * 700 * n for n in range(12)}
    zip64 = io.BytesIO()
    with zipfile.ZipFile(zip64, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    runs = [(n * 1000, bytes([n + 1]) * 30) for n in range(40)]
    holes = sparse(runs, 100_000) + tarred(files, format=tarfile.GNU_FORMAT)
    return {
        "zip64.zip": zip64.getvalue(),
        "sparse.tar": holes,
        "pax.tar": tarred(files, format=tarfile.PAX_FORMAT, pax_headers={"comment": "c" * 900}),
    }


ODD = odd_archives()
GZIPPED = gzip.compress(ODD["sparse.tar"])


def mutated(archive: bytes, seed: int) -> bytes:
    """Return an archive with some bytes changed, removed or repeated."""
    choice, content = random.Random(seed), bytearray(archive)
    for _ in range(choice.randint(1, 6)):
        at = choice.randrange(len(content))
        if choice.random() < 0.5:  # where the structures are
            marks = b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"ustar", b"GNU.sparse"
            at = max(content.find(choice.choice(marks), at), at) + choice.randint(-300, 100)
            at = min(max(at, 0), len(content) - 1)
        n = choice.choice([1, 1, 1, 4, 8, 512])
        if (kind := choice.random()) < 0.7:
            value = choice.choice([b"\xff", b"\0", b"\x80", b"7", choice.randbytes(1)])
            content[at : at + n] = value * len(content[at : at + n])
        elif kind < 0.85:
            del content[at : at + n]
        else:
            content[at:at] = content[at : at + n]
        content = content or bytearray(b"\0")
    return bytes(content)


def broken(name: str, seed: int) -> bytes:
    """Return a mutated archive; a gzipped one is broken within its stream or within its TAR."""
    if name.endswith(".gz"):
        archive = ODD[name.removesuffix(".gz")]
        return gzip.compress(mutated(archive, seed)) if seed % 3 else mutated(GZIPPED, seed)
    return mutated(ODD[name], seed)


@pytest.mark.parametrize("name", [*ODD, "sparse.tar.gz"])
def test_a_mutated_archive_is_read_or_rejected_within_its_bounds(
    name: str, pytestconfig: pytest.Config
) -> None:
    """Pieces raises an AssertionError where bytes are requested that do not exist."""
    limits = limits_of(members=1000, inflatedBytes=20 * MIB)
    slowest = 0.0
    tracemalloc.start()
    try:
        for seed in range(5000 if pytestconfig.getoption("--long") else 150):
            begin = time.thread_time()
            try:
                for member in members(Pieces([broken(name, seed)]), name, limits):
                    assert member.name.encode() is not None
                    read_ends(member.source)
            except RejectedEventError:
                pass
            slowest = max(slowest, time.thread_time() - begin)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * MIB
    assert slowest < 5, "CPU seconds"


def read_ends(source: Source) -> None:
    """Read the first window of a member and its last bytes."""
    try:
        size = source.size
        assert len(source.read_at(0, min(size, 64 * 1024))) == min(size, 64 * 1024)
        assert len(source.read_at(max(size - 8, 0), min(size, 8))) == min(size, 8)
    except RejectedEventError:
        pass

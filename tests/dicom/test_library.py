"""`dcm2bq.dicom` as a library: what `convert` accepts and returns, and what its help shows."""

import errno
import os
import pydoc
import subprocess
import sys
import time
import traceback
import tracemalloc
from collections.abc import Mapping
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, assert_type

import msgspec
import pytest

from dcm2bq import dicom as library
from dcm2bq.config import Config, from_overrides
from dcm2bq.dicom import Conversion, Source, convert
from dcm2bq.dicom.conversion import _OPTIONS
from tests.dicom.build import CountingSource, dicom, element, header, identity

ROOT = Path(__file__).parents[2]
PRIVATE = element(0x00090010, "LO", "ACME 1.0") + element(0x00091001, "OB", b"12")
CONTENT = dicom(identity(), PRIVATE, element(0x00100020, "LO", "SENTINEL"))
WITHOUT_PRIVATE = convert(CONTENT, {"jsonOutput": {"ignorePrivate": True}})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.dcm"
    path.write_bytes(CONTENT)
    return path


def test_help_fits_a_screen_of_80_columns() -> None:
    text = pydoc.plain(pydoc.render_doc(convert))
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= 80
    assert '>>> scan = convert("scan.dcm"' in text


def test_a_path_bytes_a_stream_and_a_source_give_the_same(file: Path) -> None:
    expected = convert(BytesIO(CONTENT))
    content = bytearray(CONTENT)
    for source in (str(file), file, CONTENT, content, memoryview(CONTENT), CountingSource(CONTENT)):
        assert convert(source) == expected
    with file.open("rb") as stream:
        assert convert(stream) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"jsonOutput": {"ignorePrivate": True}},
        from_overrides({"jsonOutput": {"ignorePrivate": True}}),
    ],
    ids=["overrides", "configuration"],
)
def test_the_configuration_may_be_positional_or_named(config: Any) -> None:
    """`options` is the name that this argument had at first."""
    assert convert(CONTENT, config) == WITHOUT_PRIVATE
    assert convert(CONTENT, config=config) == WITHOUT_PRIVATE
    assert convert(CONTENT, options=config) == WITHOUT_PRIVATE


def test_options_have_their_python_names_and_override_the_configuration() -> None:
    assert convert(CONTENT, ignore_private=True) == WITHOUT_PRIVATE
    config = {"jsonOutput": {"ignorePrivate": True}, "bulkData": {"inlineMaxBytes": 1}}
    for overridden in (config, from_overrides(config)):
        done = convert(CONTENT, overridden, ignore_private=False, inline_max_bytes=2)
        assert done.metadata["00091001"] == {"InlineBinary": "MTI="}


def test_a_list_named_options_is_that_of_the_privacy_profile() -> None:
    with pytest.raises(library.ConfigError, match=r"privacy.options: retainUids needs"):
        convert(CONTENT, options=["retainUids"])
    with pytest.raises(library.ConfigError, match=r"privacy.options\[0\]: must be one of"):
        convert(CONTENT, {"privacy": {"profile": "basic"}}, options=["retainUid"])


def test_no_two_options_have_the_same_python_name() -> None:
    groups = {field.encode_name: field.type for field in msgspec.structs.fields(Config)}
    names = [
        option.name
        for group in {group for group, _ in _OPTIONS.values()}
        for option in msgspec.structs.fields(groups[group])
    ]
    assert sorted(names) == sorted([*_OPTIONS, "deadline_seconds", "members"])
    assert not {"source", "config", "bulk_data_root", "timeout"} & set(_OPTIONS)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ignore_privat", ": did you mean 'ignore_private'?"),
        ("ignorePrivate", ": did you mean 'ignore_private'?"),
        ("time_out", ": did you mean 'timeout'?"),
        ("deadline_seconds", ": use timeout"),
        ("dataset_id", ""),
    ],
)
def test_a_wrong_option_is_an_error_that_suggests_the_right_one(name: str, hint: str) -> None:
    options: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError) as error:
        convert(CONTENT, **options)
    assert str(error.value) == f"convert() has no option {name!r}{hint}"


def test_a_wrong_value_names_the_option() -> None:
    with pytest.raises(library.ConfigError, match=r"bulkData.inlineMaxBytes: must be an integer"):
        convert(CONTENT, inline_max_bytes=-1)
    with pytest.raises(library.ConfigError, match=r"did you mean jsonOutput\.ignorePrivate"):
        convert(CONTENT, {"jsonOutput": {"ignorePrivates": True}})


def test_the_timeout_is_in_seconds() -> None:
    assert convert(CONTENT, timeout=60).metadata
    with pytest.raises(library.ReadFailedError):
        convert(CONTENT, timeout=0)


def test_a_conversion_shows_sizes_and_counts_but_no_value() -> None:
    done = convert(CONTENT)
    assert repr(done) == (
        f"<Conversion: {len(done.text)} characters of JSON, 0 warnings, 0 dropped tags, "
        f"3 of {len(done.columns)} columns>"
    )
    assert "SENTINEL" in done.text
    assert done.columns["PatientID"] == "SENTINEL"


def test_a_file_is_closed_whether_or_not_it_can_be_converted(file: Path) -> None:
    before = set(Path("/dev/fd").iterdir())
    convert(file)
    file.write_bytes(b"not DICOM")
    with pytest.raises(library.NotDicomError):
        convert(file)
    assert set(Path("/dev/fd").iterdir()) == before


def test_a_path_that_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """Opening a FIFO would wait for a writer, for which there is no time-out."""
    pipe = tmp_path / "pipe.dcm"
    os.mkfifo(pipe)
    program = "import sys; from dcm2bq.dicom import convert; convert(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(pipe)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    error = done.stderr.splitlines()[-1]
    assert error == f"OSError: [Errno {errno.EINVAL}] not a regular file: '{pipe}'"


def test_an_empty_file_is_refused_as_empty(file: Path) -> None:
    file.write_bytes(b"")
    for source in (b"", file, BytesIO(), CountingSource(b"")):
        with pytest.raises(library.NotDicomError, match=r"^the file is empty$"):
            convert(source)


def test_a_huge_file_costs_no_more_than_its_header(file: Path) -> None:
    """8 GiB of pixels after a header; the file is sparse."""
    pixels = header(0x7FE00010, "OW", 2**32 - 2)
    with file.open("ab") as stream:
        stream.write(pixels)
        stream.truncate(len(CONTENT) + len(pixels) + 2**32 - 2)
    tracemalloc.start()
    start = time.thread_time()
    try:
        done = convert(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.metadata["PixelData"]["BulkDataURI"].endswith(f"&length={2**32 - 2}")
    assert peak < 1024 * 1024
    assert time.thread_time() - start < 1


def test_a_path_that_cannot_be_opened_raises_the_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*missing\.dcm"):
        convert(tmp_path / "missing.dcm")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        convert(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gs://bucket/scan.dcm", ValueError, "pass a stream, such as .*Blob.open"),
        ("GS://bucket/scan.dcm", ValueError, "or use the command dcm2bq dump"),
        (StringIO("text"), TypeError, "open the file in mode 'rb'"),
        (None, TypeError, "needs a path, bytes, a binary stream or a Source, not NoneType"),
        (7, TypeError, "not int"),
    ],
)
def test_an_argument_of_another_type_is_an_error_that_names_the_right_ones(
    source: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convert(source)


def test_an_error_that_the_caller_is_handling_keeps_its_variables() -> None:
    """Those of the conversion's own error are released: they hold what was read."""
    kept: list[dict[str, Any]] = []

    def fail() -> None:
        clue = "kept"
        raise ValueError(clue)

    try:
        fail()
    except ValueError as error:
        with pytest.raises(library.NotDicomError) as failed:
            convert(b"not DICOM")
        kept += [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert kept[-1] == {"clue": "kept"}
    assert not failed.traceback[-1].frame.f_locals


def test_each_error_of_a_conversion_can_be_imported_beside_it() -> None:
    exported = {name: getattr(library, name) for name in library.__all__}
    errors = {
        name
        for name, value in exported.items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert errors == {
        "ConfigError",
        "Dcm2BqError",
        "NotDicomError",
        "ReadFailedError",
        "UnlikeDicomError",
        "UnreadableDicomError",
    }


def test_the_public_names_have_their_documented_types(file: Path) -> None:
    """Mypy checks `assert_type`; `test_mypy_checks_arguments` shows that it refuses others."""
    done = convert(file, None, bulk_data_root="gs://bucket/scan.dcm?generation=1", timeout=9.5)
    assert_type(done, Conversion)
    assert_type(done.metadata, dict[str, Any])
    assert_type(done.text, str)
    assert_type(done.warnings, tuple[str, ...])
    assert_type(done.dropped_tags, tuple[str, ...])
    assert_type(done.transfer_syntax_uid, str | None)
    assert_type(done.columns, Mapping[str, str | None])
    source: Source = CountingSource(CONTENT)
    assert_type(convert(source, Config(), ignore_private=True), Conversion)


RIGHT = [
    'convert("scan.dcm")',
    "convert(Path())",
    'convert(b"")',
    "convert(memoryview(b''))",
    "convert(BytesIO())",
    "convert(open('scan.dcm', 'rb'), {'limits': {'depth': 3}}, timeout=1)",
    "convert('scan.dcm', Config(), inline_max_bytes=100)",
]
WRONG = [
    "convert(7)",
    "convert(StringIO())",
    "convert('scan.dcm', 'flat')",
    "convert('scan.dcm', timeout='1 s')",
    "convert('scan.dcm', None, 'gs://bucket/name')",
    "convert('scan.dcm').attributes",
    "convert('scan.dcm').columns['PatientID'] = None",
]


def test_mypy_checks_arguments(tmp_path: Path) -> None:
    imports = [
        "from io import BytesIO, StringIO",
        "from pathlib import Path",
        "from dcm2bq.config import Config",
        "from dcm2bq.dicom import convert",
    ]
    file = tmp_path / "surface.py"
    file.write_text("\n".join([*imports, *RIGHT, *WRONG]) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    command += ["--follow-imports=silent", "--cache-dir", str(ROOT / ".mypy_cache"), str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr
    refused = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    first = len(imports) + len(RIGHT) + 1
    assert refused == set(range(first, first + len(WRONG))), done.stdout

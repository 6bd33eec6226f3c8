"""`dcm2bq dump`: headers as JSON, from files, folders, patterns, objects and standard input."""

import io
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click import progressbar

from dcm2bq import cli
from dcm2bq.dicom import convert
from tests.support.archive_files import tar_of, zip_of
from tests.support.cloud import Bucket
from tests.support.http_server import serving

COMMAND = str(Path(sys.executable).with_name("dcm2bq"))
PACKAGE = find_spec("pydicom")
assert PACKAGE is not None
assert PACKAGE.origin is not None
SNIFF = "(1 with no extension): to convert such files, add --option input.otherNames=sniff\n"
FILES = Path(PACKAGE.origin).parent / "data" / "test_files"


class Dump:
    """Runs `dcm2bq dump` and keeps its output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.status = -1
        self.out = self.err = ""

    def __call__(self, *args: object) -> "Dump":
        self.status = cli.main(["dump", *map(str, args)])
        self.out, self.err = self._capsys.readouterr()
        return self

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def modalities(self) -> list[str]:
        return [line["Modality"] for line in self.lines]


@pytest.fixture
def dump(capsys: pytest.CaptureFixture[str]) -> Dump:
    return Dump(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three DICOM files, one of them without a matching name."""
    (tmp_path / "sub").mkdir()
    shutil.copyfile(FILES / "CT_small.dcm", tmp_path / "a.dcm")
    shutil.copyfile(FILES / "MR_small.dcm", tmp_path / "sub" / "b.DCM")
    shutil.copyfile(FILES / "rtplan.dcm", tmp_path / "sub" / "other")
    return tmp_path


def test_only_regular_files_are_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    shutil.copyfile(FILES / "CT_small.dcm", tmp_path / "scan.dcm")
    assert cli.main(["dump", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert err == f"{tmp_path}/pipe.dcm: not a regular file\n"
    assert len(out.splitlines()) == 1
    assert cli.main(["dump", str(tmp_path / "pipe.dcm"), "/dev/null"]) == 1
    assert capsys.readouterr().err.count("not a regular file") == 2


def test_a_single_file_is_printed_as_one_indented_document(dump: Dump) -> None:
    dump(FILES / "CT_small.dcm")
    assert dump.status == 0
    assert dump.err == ""
    assert dump.out.startswith('{\n  "')
    with (FILES / "CT_small.dcm").open("rb") as stream:
        assert json.loads(dump.out) == convert(stream).metadata


def test_several_files_are_printed_as_lines_in_their_order(dump: Dump) -> None:
    dump(FILES / "MR_small.dcm", FILES / "CT_small.dcm")
    assert dump.modalities == ["MR", "CT"]


def test_a_folder_is_searched_for_names_that_match(dump: Dump, folder: Path) -> None:
    assert dump(folder).modalities == ["CT", "MR"]
    assert dump.status == 0


def test_skipped_names_are_counted(dump: Dump, folder: Path) -> None:
    assert dump(folder).err == (
        "skipped: 1 name that does not match input.namePattern\n"
        f"1 of 1 file that input.namePattern excludes begins with DICM {SNIFF}"
    )
    (folder / "notes.txt").touch()
    assert dump(folder).err == (
        "skipped: 2 names that do not match input.namePattern\n"
        f"1 of 2 files that input.namePattern excludes begins with DICM {SNIFF}"
    )
    assert dump(folder / "**/*").modalities == ["CT", "MR", "RTPLAN"]
    assert "skipped: " not in dump.err  # the glob matches every file
    assert dump(folder / "a.dcm").err == ""


def test_files_of_other_names_are_sniffed_if_asked_to(dump: Dump, folder: Path) -> None:
    (folder / "notes.txt").write_text("text")
    (folder / "forged").write_bytes(bytes(128) + b"DICM" + b"\xff" * 200)
    dump("--option", "input.otherNames=sniff", folder)
    assert dump.modalities == ["CT", "MR", "RTPLAN"]
    assert dump.err.splitlines() == [
        f"{folder}/forged: expected an item (offset 140)",
        "skipped: 1 file that does not begin like DICOM",
    ]
    assert dump.status == 1


def test_a_file_that_several_arguments_name_is_printed_once(dump: Dump, folder: Path) -> None:
    dump(folder, folder / "a.dcm", folder / "**/*", f"{folder}/sub/../a.dcm")
    assert sorted(dump.modalities) == ["CT", "MR", "RTPLAN"]
    assert dump(folder / "none.dcm", folder / "none.dcm").err.count("none.dcm") == 1


def test_a_folder_with_one_file_is_printed_as_lines(dump: Dump, folder: Path) -> None:
    assert dump(folder / "sub").modalities == ["MR"]


def test_a_file_given_by_name_is_read_whatever_its_name(dump: Dump, folder: Path) -> None:
    assert json.loads(dump(folder / "sub" / "other").out)["Modality"] == "RTPLAN"


def test_the_name_pattern_of_the_configuration_applies(
    dump: Dump, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"input": {"namePattern": "^sub/o"}}')
    assert dump(folder).modalities == ["RTPLAN"]


def test_a_folder_without_a_match_is_reported(dump: Dump, tmp_path: Path) -> None:
    dump(tmp_path)
    assert (dump.status, dump.out) == (1, "")
    assert dump.err == f"{tmp_path}: no file in this folder matches input.namePattern\n"


def test_a_folder_that_cannot_be_listed_is_reported_once(
    dump: Dump, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> NoReturn:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list any folder
    dump(folder)
    (line,) = dump.err.splitlines()
    assert line.startswith(f"{folder}: Permission denied")


def test_an_empty_path_is_refused_before_anything_is_printed(dump: Dump, folder: Path) -> None:
    dump(folder, "")
    assert (dump.status, dump.out) == (2, "")
    assert "PATH is empty" in dump.err


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.dcm", ["CT"]),
        ("**/*", ["CT", "MR", "RTPLAN"]),
        ("s?b", ["MR"]),
        ("[s]ub/*", ["MR", "RTPLAN"]),
    ],
)
def test_a_pattern_reads_each_file_once(
    dump: Dump, folder: Path, pattern: str, expected: list[str]
) -> None:
    assert dump(folder / pattern).modalities == expected


def test_a_pattern_without_a_match_is_reported(dump: Dump, tmp_path: Path) -> None:
    dump(tmp_path / "*.dcm", FILES / "CT_small.dcm")
    assert dump.status == 1
    assert dump.err == f"{tmp_path}/*.dcm: no file matches this pattern\n"
    assert dump.modalities == ["CT"]


def test_an_existing_file_whose_name_looks_like_a_pattern_is_read(dump: Dump, folder: Path) -> None:
    shutil.copyfile(FILES / "CT_small.dcm", folder / "scan[1].dcm")
    assert dump(folder / "scan[1].dcm").out.startswith("{\n")


def test_standard_input_is_read(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO((FILES / "CT_small.dcm").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    assert json.loads(dump("-").out)["Modality"] == "CT"
    assert dump.out.startswith("{\n")


def test_a_pipe_is_read() -> None:
    content = (FILES / "CT_small.dcm").read_bytes()
    done = subprocess.run([COMMAND, "dump", "-"], input=content, capture_output=True, check=True)
    assert json.loads(done.stdout)["Modality"] == "CT"


def test_the_envelope_has_path_metadata_and_warnings(dump: Dump, folder: Path) -> None:
    dump("--envelope", folder / "a.dcm")
    (line,) = dump.lines
    assert list(line) == ["path", "metadata", "warnings"]
    assert line["path"] == str(folder / "a.dcm")
    assert line["metadata"]["Modality"] == "CT"
    assert line["warnings"] == []


def test_a_path_that_is_not_utf8_does_not_break_the_envelope(dump: Dump, tmp_path: Path) -> None:
    shutil.copyfile(FILES / "CT_small.dcm", tmp_path / os.fsdecode(b"\xff.dcm"))
    (line,) = dump("--envelope", tmp_path).lines
    assert line["path"] == f"{tmp_path}/\ufffd.dcm"


def test_the_format_can_be_chosen(dump: Dump) -> None:
    dump("--format", "dicom-json", FILES / "CT_small.dcm")
    assert json.loads(dump.out)["00080060"] == {"vr": "CS", "Value": ["CT"]}


def test_options_override_the_configuration(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCM2BQ_CONFIG", '{"jsonOutput": {"useCommonNames": false}}')
    one = json.loads(
        dump("--option", "jsonOutput.ignoreMetaHeader=true", FILES / "CT_small.dcm").out
    )
    assert "00020010" not in one
    assert one["00080060"] == "CT"
    two = json.loads(
        dump(
            *("--option", "jsonOutput.useCommonNames=true"),
            *("--option", "jsonOutput.useArrayWithSingleValue=true"),
            FILES / "CT_small.dcm",
        ).out
    )
    assert two["Modality"] == ["CT"]


def test_the_value_of_an_option_can_be_plain_text(dump: Dump, folder: Path) -> None:
    assert dump("--option", r"input.namePattern=^a\.dcm$", folder).modalities == ["CT"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("jsonOutput.ignorePrivate", "expected NAME=VALUE"),
        ("jsonOutput.ignorPrivate=true", "did you mean jsonOutput.ignorePrivate?"),
        ("jsonOutput.ignorePrivate=perhaps", "jsonOutput.ignorePrivate"),
        ("jsonOutput.format.deep=1", "jsonOutput.format.deep: no such option"),
        ("nothing.at.all=1", "nothing: no such option"),
        ("input.namePattern=(", "input.namePattern"),
        ("jsonOutput.format=xml", "must be one of flat, dicom-json"),
        ("privacy.profile=strict", "must be one of basic, null"),
        ("log.level=LOUD", "must be one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_wrong_options_are_usage_errors(dump: Dump, option: str, message: str) -> None:
    dump("--option", option, FILES / "CT_small.dcm")
    assert dump.status == 2
    assert message in dump.err
    assert dump.out == ""


def test_the_format_can_be_given_only_once(dump: Dump) -> None:
    dump("--format", "flat", "--option", "jsonOutput.format=flat", FILES / "CT_small.dcm")
    assert (dump.status, dump.out) == (2, "")
    assert "--format and --option jsonOutput.format are both given: use one" in dump.err


def test_unreadable_files_are_reported_and_the_others_printed(dump: Dump, tmp_path: Path) -> None:
    text, cut, missing = tmp_path / "text.dcm", tmp_path / "cut.dcm", tmp_path / "missing.dcm"
    text.write_text("SENTINEL^NAME")
    cut.write_bytes((FILES / "CT_small.dcm").read_bytes()[:1500])
    dump(text, FILES / "CT_small.dcm", cut, missing, FILES / "MR_small.dcm")
    assert dump.modalities == ["CT", "MR"]
    assert dump.status == 1
    paths = [line.partition(": ")[0] for line in dump.err.splitlines()]
    assert paths == [str(text), str(cut), str(missing)]
    assert dump.err.endswith(f"{missing}: No such file or directory\n")
    assert "SENTINEL" not in dump.err


def test_an_unforeseen_error_reveals_no_value(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("SENTINEL^NAME")

    monkeypatch.setattr("dcm2bq.tools.dump.convert", fail)
    dump(FILES / "CT_small.dcm")
    assert dump.status == 1
    assert "ValueError" in dump.err
    assert "SENTINEL" not in dump.err


def test_verbose_counts_the_warnings(dump: Dump, tmp_path: Path) -> None:
    odd = tmp_path / "cut inside the pixel data.dcm"
    odd.write_bytes((FILES / "CT_small.dcm").read_bytes()[:-1000])
    assert dump(odd).err == ""
    assert dump("--verbose", odd).err == f"{odd}: 1 warning\n"
    assert dump("--verbose", FILES / "CT_small.dcm").err == ""


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    with subprocess.Popen(
        [COMMAND, "dump", *[str(FILES / "CT_small.dcm")] * 500],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_missing_path_is_a_usage_error(dump: Dump) -> None:
    assert dump().status == 2


def test_progress_is_shown_only_if_the_output_goes_elsewhere(
    dump: Dump, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = []

    def record(*args: Any, **options: Any) -> Any:
        hidden.append(options.pop("hidden"))
        return progressbar(*args, **options, hidden=True)

    monkeypatch.setattr("click.progressbar", record)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    dump(folder)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    dump(folder)
    assert hidden == [False, True]


@pytest.fixture
def bucket(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
    bucket = Bucket(storage_url, f"bucket-{uuid.uuid4().hex}")
    bucket.upload("2026/a #1 ü%41.dcm", (FILES / "CT_small.dcm").read_bytes())
    bucket.upload("2026/b.dcm", (FILES / "MR_small.dcm").read_bytes())
    bucket.upload("2026/b.dcm.txt", b"text")
    bucket.upload("2026/empty.dcm", b"")
    bucket.upload("other", (FILES / "rtplan.dcm").read_bytes())
    return bucket


def test_an_object_is_read_like_a_file(dump: Dump, bucket: Bucket) -> None:
    dump(f"gs://{bucket.name}/2026/a #1 ü%41.dcm")
    assert (dump.status, dump.err) == (0, "")
    assert dump.out.startswith('{\n  "')
    assert json.loads(dump.out)["Modality"] == "CT"
    assert json.loads(dump(f"gs://{bucket.name}/other").out)["Modality"] == "RTPLAN"


def test_bulk_data_uris_can_name_the_object(dump: Dump, bucket: Bucket) -> None:
    option = ("--option", "jsonOutput.explicitBulkDataRoot=true")
    (line,) = dump("--envelope", *option, f"gs://{bucket.name}/2026/b.dcm").lines
    assert line["path"] == f"gs://{bucket.name}/2026/b.dcm"
    uri = line["metadata"]["PixelData"]["BulkDataURI"]
    assert uri.startswith(f"gs://{bucket.name}/2026/b.dcm?generation=")


@pytest.mark.parametrize("prefix", ["", "/", "/2026/"])
def test_a_prefix_is_searched_for_names_that_match(dump: Dump, bucket: Bucket, prefix: str) -> None:
    assert dump(f"gs://{bucket.name}{prefix}").modalities == ["CT", "MR"]
    assert dump.status == 0


def test_skipped_objects_are_counted(dump: Dump, bucket: Bucket) -> None:
    names = "2 names that do not match input.namePattern"
    assert dump(f"gs://{bucket.name}").err == (
        f"skipped: {names}, 1 empty object\n"
        "1 of 2 objects that input.namePattern excludes begins with DICM "
        f"{SNIFF}"
    )
    assert dump(f"gs://{bucket.name}/other").err == ""


def test_objects_of_other_names_are_sniffed_if_asked_to(dump: Dump, bucket: Bucket) -> None:
    dump("--option", "input.otherNames=sniff", f"gs://{bucket.name}")
    assert dump.modalities == ["CT", "MR", "RTPLAN"]
    assert dump.err == "skipped: 1 empty object, 1 file that does not begin like DICOM\n"
    assert dump.status == 0


@pytest.mark.usefixtures("refusing")
def test_the_members_of_an_archive_are_printed_as_lines(dump: Dump, bucket: Bucket) -> None:
    """Also of a single one; what does not begin like DICOM is skipped."""
    content = zip_of(
        {
            "a/ct": (FILES / "CT_small.dcm").read_bytes(),
            "cut": (FILES / "CT_small.dcm").read_bytes()[:1000],
            "notes": b"text",
            "mr": (FILES / "MR_small.dcm").read_bytes(),
        }
    )
    bucket.upload("study/1.zip", content)
    uri = f"gs://{bucket.name}/study/1.zip"
    dump("--envelope", uri)
    assert [(line["path"], line["member"]) for line in dump.lines] == [(uri, "a/ct"), (uri, "mr")]
    reference = dump.lines[0]["metadata"]["PixelData"]["BulkDataURI"]
    assert reference.startswith("?member=a/ct&offset=")
    failed, skipped = dump.err.splitlines()
    assert failed.startswith(f"{uri}, member cut: ")
    assert skipped == "skipped: 1 file that does not begin like DICOM"
    assert dump.status == 1
    assert dump(f"gs://{bucket.name}/study/").lines == []
    read = ("--option", "input.archives=read")
    assert dump(*read, f"gs://{bucket.name}/study/").modalities == ["CT", "MR"]


def test_a_local_archive_is_read_like_a_folder(dump: Dump, tmp_path: Path) -> None:
    archive = tmp_path / "a" / "scans.TAR"
    archive.parent.mkdir()
    archive.write_bytes(tar_of({"ct": (FILES / "CT_small.dcm").read_bytes()}))
    assert dump(archive).modalities == ["CT"]
    assert "member" not in dump(FILES / "CT_small.dcm").out
    assert dump("--option", "input.archives=read", archive.parent).modalities == ["CT"]
    assert dump(archive.parent).status == 1
    archive.with_suffix(".zip").write_bytes(b"PK")
    dump(archive.with_suffix(".zip"))
    message = "no readable directory of a ZIP at the end: the archive is cut, or is not a ZIP"
    assert (dump.status, dump.err) == (1, f"{archive.with_suffix('.zip')}: {message}\n")


def test_several_archives_are_printed_with_all_their_members(dump: Dump, tmp_path: Path) -> None:
    ct, mr = ((FILES / name).read_bytes() for name in ("CT_small.dcm", "MR_small.dcm"))
    (tmp_path / "1.zip").write_bytes(zip_of({"a": ct, "b": mr}))
    (tmp_path / "2.tar").write_bytes(tar_of({"a": mr, "b": mr}))
    paths = [tmp_path / "1.zip", tmp_path / "2.tar"]
    assert dump(*paths, paths[0]).modalities == ["CT", "MR", "MR", "MR"]
    assert dump(tmp_path / "[12].*").modalities == ["CT", "MR", "MR", "MR"]


def test_an_archive_beyond_a_limit_is_reported_and_read_no_further(
    dump: Dump, tmp_path: Path
) -> None:
    file = tmp_path / "1.zip"
    file.write_bytes(zip_of({str(n): (FILES / "CT_small.dcm").read_bytes() for n in range(9)}))
    dump("--option", "limits.inflatedBytes=1000", file)
    assert dump.status == 1
    in_member, in_archive = dump.err.splitlines()
    assert in_member.startswith(f"{file}, member 0: the archive inflates beyond")
    assert in_archive.startswith(f"{file}: the archive inflates beyond")


def test_an_archive_without_files_is_reported(dump: Dump, tmp_path: Path) -> None:
    (tmp_path / "1.zip").write_bytes(zip_of({}))
    dump(tmp_path / "1.zip")
    assert (dump.status, dump.err) == (1, f"{tmp_path / '1.zip'}: no file in this archive\n")


@pytest.mark.parametrize("uri", ["gs://", "gs:///x", "gs://UPPER", "gs://a", "GS://bucket/a.dcm"])
def test_an_invalid_uri_is_refused_before_anything_is_read(dump: Dump, uri: str) -> None:
    dump(FILES / "CT_small.dcm", uri)
    assert (dump.status, dump.out) == (2, "")
    (line,) = dump.err.splitlines()
    assert line.startswith(f"dcm2bq: {uri}: gs://BUCKET or gs://BUCKET/NAME is expected")


def test_missing_objects_are_reported(dump: Dump, bucket: Bucket) -> None:
    dump(f"gs://{bucket.name}/2026/b", f"gs://{bucket.name}/none/", FILES / "CT_small.dcm")
    assert dump.err.splitlines() == [
        f"gs://{bucket.name}/2026/b: no such object",
        f"gs://{bucket.name}/none/: no such object",
    ]
    assert dump.status == 1
    assert dump.modalities == ["CT"]


def test_a_missing_bucket_is_reported(dump: Dump, bucket: Bucket) -> None:
    dump(f"gs://{bucket.name}-missing/", FILES / "CT_small.dcm")
    assert "no such bucket" in dump.err
    assert dump.status != 0
    assert dump.modalities == ["CT"]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Cloud Storage that answers every request with 403."""
    with serving(lambda exchange: exchange.answer(403)) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield


@pytest.mark.usefixtures("refusing")
def test_a_service_that_refuses_has_its_own_status(dump: Dump, tmp_path: Path) -> None:
    dump("gs://bucket/a.dcm", tmp_path / "missing.dcm", FILES / "CT_small.dcm")
    assert dump.status == 3
    assert dump.err.splitlines()[0].startswith("gs://bucket/a.dcm: Cloud Storage: HTTP 403")
    assert dump.modalities == ["CT"]

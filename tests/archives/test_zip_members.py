"""ZIP: the directory, local headers, and members that can or cannot be read."""

import io
import random
import struct
import threading
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from dcm2bq import dicom
from dcm2bq.archives import is_archive_name, members
from dcm2bq.config import Limits
from dcm2bq.dicom.read.source import StreamSource
from dcm2bq.errors import ArchiveTooLargeError, ReadFailedError, UnreadableArchiveError
from tests.archives.reading import FILES, contents, members_of, whole
from tests.dicom.build import dicom as part10
from tests.dicom.build import identity
from tests.support.archive_files import zip_of
from tests.support.slices import Pieces

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def zipped(
    files: Mapping[str, bytes] = FILES, method: int = DEFLATED, comment: bytes = b""
) -> bytes:
    return zip_of(files, compression=method, comment=comment)


def edited(archive: bytes, signature: bytes, offset: int, fields: str, *values: int) -> bytes:
    """Return an archive with fields changed in the first record with a signature."""
    content = bytearray(archive)
    struct.pack_into(fields, content, archive.index(signature) + offset, *values)
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "is_archive"),
    [
        ("a.zip", True),
        ("a/B.ZIP", True),
        ("x.tar", True),
        ("x.Tar.Gz", True),
        ("x.tgz", True),
        ("x.gz", False),
        ("x.dcm", False),
        ("zip", False),
        ("a.zip/b.dcm", False),
    ],
)
def test_an_archive_is_known_by_the_end_of_its_name(name: str, is_archive: bool) -> None:  # noqa: FBT001
    assert is_archive_name(name) is is_archive


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_members_have_their_names_and_contents_in_the_order_of_the_archive(method: int) -> None:
    read = contents(zipped(method=method), "x.zip")
    assert read == FILES
    assert list(read) == list(FILES)


def test_a_comment_and_data_before_the_archive_do_not_matter() -> None:
    archive = b"#!/bin/sh\n" * 50_000 + zipped(comment=b"PK\1\2" + b"c" * 65_000)
    assert contents(archive, "x.zip") == FILES


def test_a_directory_longer_than_the_first_read_is_read_whole() -> None:
    files = {f"{'folder/' * 20}{number:04}": b"x" for number in range(1000)}
    source = Pieces([zipped(files, STORED)])
    assert contents(source, "x.zip") == files
    assert source.requests < 10


def test_zip64_sizes_and_offsets_are_read() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, archive.open("a", "w", force_zip64=True) as file:
        file.write(b"content")
    assert contents(stream.getvalue(), "x.zip") == {"a": b"content"}
    # The directory's own zip64 records, as written for more than 65,535 members.
    end = stream.getvalue().rindex(b"PK\5\6")
    head, record = stream.getvalue()[:end], stream.getvalue()[end:]
    size, offset = struct.unpack_from("<LL", record, 12)
    zip64 = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    assert contents(head + zip64 + locator + short, "x.zip") == {"a": b"content"}


class Pipe(io.BytesIO):
    """A stream that a writer cannot go back in: sizes follow the content."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_sizes_in_data_descriptors_after_the_content_are_not_needed(method: int) -> None:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    assert pipe.getvalue()[6] & 8, "the flag of data descriptors"
    assert contents(pipe.getvalue(), "x.zip") == FILES


def test_a_member_is_inflated_no_further_than_it_is_read() -> None:
    archive = zipped({"zeros": bytes(50_000_000)})
    (member,) = members_of(archive, "x.zip", inflatedBytes=200_000)
    assert member.source.read_at(0, 70_000) == bytes(70_000)
    with pytest.raises(ArchiveTooLargeError, match=r"limits\.inflatedBytes, 200000"):
        member.source.read_at(49_999_000, 1000)


def test_a_deflated_member_can_be_read_backwards() -> None:
    content = bytes(range(256)) * 3000
    (member,) = members_of(zipped({"a": content}), "x.zip")
    for offset in 700_000, 0, 400_000, 399_000, 699_000:
        assert member.source.read_at(offset, 5000) == content[offset : offset + 5000]
    assert member.source.read_at(len(content) - 5, 100) == content[-5:]


def test_folders_links_empty_members_and_files_of_macos_are_skipped() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.mkdir("folder")
        archive.writestr("empty.dcm", b"")
        archive.writestr("__MACOSX/folder/._a.dcm", b"resource fork")
        link = zipfile.ZipInfo("link.dcm")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "folder/a.dcm")
        archive.writestr("folder/a.dcm", b"content")
    assert contents(stream.getvalue(), "x.zip") == {"folder/a.dcm": b"content"}


def test_a_name_that_is_not_utf_8_is_read_as_code_page_437() -> None:
    archive = zipped({"Bücher": b"content"}).replace("Bücher".encode(), b"B\x81cherx"[:7])
    (member,) = members_of(edited(archive, b"PK\1\2", 8, "<H", 0), "x.zip")
    assert member.name == "Bücherx"


def test_of_two_members_of_one_name_the_first_is_read() -> None:
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a", b"first")
        archive.writestr("b", b"between")
        archive.writestr("a", b"second")
    first, _, second = members_of(stream.getvalue(), "x.zip")
    assert whole(first.source) == b"first"
    assert str(second.error) == "another member has the same name"


@pytest.mark.parametrize(
    ("offset", "fields", "value", "reason"),
    [
        (8, "<H", 1, "the member is encrypted: pack it without a password"),
        (8, "<H", 0x20, "the member is a patch"),
        (10, "<H", 12, "compression method 12 is not supported: store or deflate"),
        (10, "<H", 0, "the member is stored, but its two sizes differ"),
        (20, "<L", 2**31, "the member is longer than the archive's structure allows"),
        (42, "<L", 3, "no local header where the directory says"),
        (42, "<L", 2**31, "no local header where the directory says"),
    ],
)
def test_a_member_that_cannot_be_read_says_why_and_the_others_are_read(
    offset: int, fields: str, value: int, reason: str
) -> None:
    files = {"broken": b"xy" * 500, "sound": b"content"}
    broken, sound = members_of(edited(zipped(files), b"PK\1\2", offset, fields, value), "x.zip")
    assert (broken.name, str(broken.error)) == ("broken", reason)
    with pytest.raises(UnreadableArchiveError, match=reason):
        broken.source.read_at(0, 1)
    assert whole(sound.source) == b"content"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.replace(b"\xed\xc1\x31\x01", b"\xff\xff\xff\xff"), "corrupt"),
        (lambda data: edited(data, b"PK\1\2", 24, "<L", 5000), "ends after 4000 of 5000 bytes"),
        (lambda data: edited(data, b"PK\1\2", 20, "<L", 5), "are cut"),
    ],
)
def test_a_deflated_member_that_is_broken_is_no_failure_of_the_service(
    change: Any, reason: str
) -> None:
    archive = change(zipped({"a": bytes(4000)}))
    (member,) = members_of(archive, "x.zip")
    with pytest.raises(UnreadableArchiveError, match=reason):
        whole(member.source)


def test_members_before_the_first_byte_are_not_read() -> None:
    archive = zipped({"a": b"x" * 50, "b": b"y" * 50}, STORED)
    start = archive.index(b"PK\1\2")
    assert contents(edited(archive, b"PK\5\6", 16, "<L", start + 10), "x.zip") == {
        "a": "the member is outside the archive",
        "b": "no local header where the directory says",
    }


def test_members_that_share_bytes_are_not_read() -> None:
    """As in bombs whose members overlap, so that a few bytes inflate to many members."""
    archive = zipped({"a": b"x" * 5000, "b": b"y" * 5000}, STORED)
    second = archive.rindex(b"PK\1\2")
    shared = archive[:second] + edited(archive[second:], b"PK\1\2", 42, "<L", 0)
    assert contents(shared, "x.zip") == {
        "a": b"x" * 5000,
        "b": "another member has the same bytes",
    }
    nested = zipped({"a": zipped({"b": b"y" * 5000}, STORED)}, STORED)
    inner = nested.index(b"PK\3\4", 4)
    entry = edited(archive[second : archive.rindex(b"PK\5\6")], b"PK\1\2", 42, "<L", inner)
    start = nested.rindex(b"PK\1\2")
    directory = nested[start : nested.rindex(b"PK\5\6")] + entry
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 2, 2, len(directory), start, 0)
    assert contents(nested[:start] + directory + end, "x.zip") == {
        "a": "the member is longer than the archive's structure allows",
        "b": b"y" * 5000,
    }


@pytest.mark.parametrize("content", [b"PK\3\4", bytes(100_000), zipped()[:-30], b"no archive"])
def test_what_has_no_directory_at_its_end_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableArchiveError, match="no readable directory"):
        members_of(content, "x.zip")


def test_an_archive_has_at_most_as_many_members_as_the_limit_allows() -> None:
    files = {f"{number}/": b"" for number in range(99)} | {"a": b"content"}
    assert contents(zipped(files), "x.zip", members=100) == {"a": b"content"}
    with pytest.raises(ArchiveTooLargeError, match=r"limits\.members, 99: .* dcm2bq backfill"):
        contents(zipped(files), "x.zip", members=99)


def test_a_directory_of_more_members_than_it_declares_is_refused_before_it_is_parsed() -> None:
    archive = zipped({f"{number}": b"x" for number in range(100)})
    with pytest.raises(ArchiveTooLargeError, match=r"limits\.members"):
        contents(edited(archive, b"PK\5\6", 8, "<HH", 1, 1), "x.zip", members=99)
    with pytest.raises(ArchiveTooLargeError, match="the directory of the ZIP has"):
        contents(zipped({"n" * 60_000 + str(n): b"x" for n in range(5)}), "x.zip", members=99)


def test_ten_thousand_small_members_are_read_by_few_requests() -> None:
    files = {f"IM{number:05}": b"content" for number in range(10_000)}
    source = Pieces([zipped(files, STORED)])
    assert contents(source, "x.zip") == files
    assert source.requests < 20


def test_a_dicomdir_and_what_is_not_dicom_are_members_as_any_other() -> None:
    files = {"DICOMDIR": part10(identity()), "README": b"no DICOM"}
    directory, readme = members_of(zipped(files), "x.zip")
    assert dicom.convert(directory.source).columns["SOPInstanceUID"] == "1.2.3.4"
    assert readme.source.read_at(0, readme.size) == b"no DICOM"


def test_a_local_file_is_read_by_several_threads_as_by_one() -> None:
    files = {str(n): random.Random(n).randbytes(150_000) for n in range(100)}
    stream = io.BytesIO(zipped(files, STORED))
    assert contents(StreamSource(stream), "x.zip") == files


def test_a_consumer_that_stops_leaves_no_thread_and_few_requests() -> None:
    source = Pieces([zipped({str(n): bytes([n]) * 400_000 for n in range(100)}, STORED)])
    reading = members(source, "x.zip", Limits())
    next(reading)
    reading.close()
    assert source.requests < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("archive")]


def test_an_error_of_the_content_passes_and_ends_the_reading() -> None:
    class Failing(Pieces):
        def read_at(self, offset: int, n: int) -> bytes:
            if self.requests > 5:
                raise ReadFailedError("Cloud Storage: HTTP 503")
            return super().read_at(offset, n)

    source = Failing([zipped({str(n): bytes([n]) * 400_000 for n in range(100)}, STORED)])
    with pytest.raises(ReadFailedError, match="503"):
        contents(source, "x.zip")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("archive")]

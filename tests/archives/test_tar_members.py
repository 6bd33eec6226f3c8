"""TAR and TAR.GZ: headers of all formats, sparse members, and archives that are broken."""

import functools
import gzip
import io
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dcm2bq.archives import members
from dcm2bq.config import Limits
from dcm2bq.dicom.read.deflate import GunzippedSource
from dcm2bq.dicom.read.source import Window
from dcm2bq.errors import ArchiveTooLargeError, UnreadableArchiveError
from tests.archives.reading import FILES, contents, members_of, whole
from tests.support.archive_files import tar_of
from tests.support.slices import Pieces

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG_NAMES = {f"{'folder/' * 40}{number}": bytes([number]) * 1000 for number in range(3)}


def tarred(files: Mapping[str, bytes] = FILES, **options: Any) -> bytes:
    return tar_of(files, **options)


def block(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a header; a size that the format cannot hold is written in base 256."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


END = bytes(1024)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("form", FORMATS)
def test_members_have_their_names_and_contents_in_the_order_of_the_archive(
    form: str, compress: Callable[[bytes], bytes]
) -> None:
    files = FILES if form == "ustar" else FILES | LONG_NAMES
    read = contents(compress(tarred(files, format=FORMATS[form])), "x.tar")
    assert read == files
    assert list(read) == list(files)


def test_attributes_that_fill_the_first_window_cost_another_read_alone() -> None:
    attributes = {"comment": "c" * 200_000}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.size, info.pax_headers = 7, attributes
        archive.addfile(info, io.BytesIO(b"content"))
    assert contents(stream.getvalue(), "x.tar") == {"a": b"content"}


def test_a_name_that_is_not_utf_8_is_written_with_escapes() -> None:
    archive = tarred({"B\udcfccher": b"content"}, format=tarfile.GNU_FORMAT)
    assert contents(archive, "x.tar") == {"B\\xfccher": b"content"}


def test_a_header_of_unix_version_7_and_one_without_an_end_are_read() -> None:
    header = bytearray(block("a", 7)[:257].ljust(512, b"\0"))
    header[156:157] = b"\0"  # the type that version 7 wrote
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert contents(bytes(header) + padded(b"content"), "x.tar") == {"a": b"content"}


def test_folders_links_devices_empty_members_and_files_of_macos_are_skipped() -> None:
    kinds = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE
    archive = b"".join(block(str(kind), 0, kind) for kind in kinds) + block("empty", 0)
    archive += block("__MACOSX/._a", 4) + padded(b"fork") + block("a", 7) + padded(b"content")
    assert contents(archive + END, "x.tar") == {"a": b"content"}


def test_of_two_members_of_one_name_the_first_is_read() -> None:
    one, two = tarred({"a": b"first"})[:1024], tarred({"a": b"second", "b": b"third"})
    first, second, third = members_of(one + two, "x.tar")
    assert whole(first.source) == b"first"
    assert str(second.error) == "another member has the same name"
    assert whole(third.source) == b"third"


def sparse(runs: list[tuple[int, bytes]], size: int, stored: int | None = None) -> bytes:
    """Return a sparse member as GNU tar writes it in its old format."""
    content = b"".join(data for _, data in runs)
    header = bytearray(block("sparse", len(content) if stored is None else stored, b"S"))
    numbers = [number for start, data in runs for number in (start, len(data))]
    maps = [b"%011o\0" % number for number in numbers]
    header[386:482] = b"".join(maps[:8]).ljust(96, b"\0")
    header[482:495] = bytes([len(maps) > 8]) + b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    extensions = b""
    for first in range(8, len(maps), 42):
        more = b"".join(maps[first : first + 42]).ljust(504, b"\0")
        extensions += more + bytes([first + 42 < len(maps)]).ljust(8, b"\0")
    return bytes(header) + extensions + padded(content)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("count", [1, 4, 40])
def test_the_holes_of_a_sparse_member_are_zeros(
    count: int, compress: Callable[[bytes], bytes]
) -> None:
    runs = [(1000 + 70_000 * n, bytes([n + 1]) * 600) for n in range(count)]
    size = 70_000 * count + 50_000
    content = bytearray(size)
    for start, data in runs:
        content[start : start + len(data)] = data
    archive = compress(sparse(runs, size) + tarred({"after": b"content"}))
    assert contents(archive, "x.tar") == {"sparse": bytes(content), "after": b"content"}
    (member, _) = members_of(sparse(runs, size) + tarred({"b": b"c"}), "x.tar")
    for offset, n in [(0, 999), (900, 200), (1599, 2), (1300, 10**9), (size - 1, 1)]:
        assert member.source.read_at(offset, n) == content[offset : offset + n]


def test_a_sparse_member_of_8_gigabytes_costs_what_is_read() -> None:
    archive = sparse([(8**10, b"end")], 8**11 - 1)
    (member,) = members_of(archive + END, "x.tar")
    assert member.size == 8**11 - 1
    assert member.source.read_at(8**10 - 2, 7) == b"\0\0end\0\0"


@pytest.mark.parametrize("runs", [[(600, b"x" * 10), (0, b"y" * 10)], [(0, b"x" * 999)]])
def test_a_sparse_member_with_a_broken_map_says_so(runs: list[tuple[int, bytes]]) -> None:
    broken, after = members_of(sparse(runs, 900) + tarred({"after": b"content"}), "x.tar")
    assert str(broken.error) == "the map of the sparse member is broken"
    assert whole(after.source) == b"content"


def test_a_gzip_file_of_several_streams_is_read_to_its_end() -> None:
    archive = tarred()
    parts = [gzip.compress(archive[n : n + 99_999]) for n in range(0, len(archive), 99_999)]
    assert contents(b"\0\0\0".join(parts), "x.tgz") == FILES


def test_whether_a_tar_is_gzipped_is_seen_from_its_content() -> None:
    assert contents(tarred(), "x.tar.gz") == FILES
    assert contents(gzip.compress(tarred()), "x.tar") == FILES


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tar.gz"])
def test_an_archive_that_is_stored_gzip_encoded_is_read_in_order(
    compress: Callable[[bytes], bytes],
) -> None:
    stored = Pieces([gzip.compress(compress(tarred()))])
    assert contents(GunzippedSource(Window(stored), 10**7), "x.tar") == FILES
    with pytest.raises(UnreadableArchiveError, match="Content-Encoding"):
        contents(GunzippedSource(Window(stored), 10**7), "x.zip")


def test_members_of_a_gzipped_tar_can_be_read_again_from_their_start() -> None:
    """As a conversion does that gives way to another one."""
    files = {str(n): bytes([n]) * 400_000 for n in range(5)}
    source = Pieces([gzip.compress(tarred(files))])
    for member in members(source, "x.tgz", Limits()):
        assert whole(member.source) == whole(member.source) == files[member.name]
        assert member.source.read_at(100_000, 5) == files[member.name][:5]


CUT = "the TAR ends within a member"
# Without the time: all processes of a run must make the same parameters.
gzipped = functools.partial(gzip.compress, mtime=0)


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (tarred()[:2000], CUT),
        (tarred()[:200_000], CUT),
        (gzipped(tarred()[:2000]), CUT),
        (gzipped(block("a", 1000) + bytes(500)), CUT),
        (gzipped(tarred())[:-900], "cut"),
        (tarred()[:1024] + b"x" * 512, r"the header of a TAR's member is broken \(offset 1024\)"),
        (tarred()[:1024] + tarred()[:300], r"broken \(offset 1024\)"),
        (b"no archive", r"broken \(offset 0\)"),
        (b"x" * 100_000, r"broken \(offset 0\)"),
        (b"\x1f\x8bno gzip", "corrupt"),
        (gzipped(b"no archive"), r"broken \(offset 0\)"),
        (block("name", 2**40, b"L") + bytes(2000), r"broken \(offset 0\)"),
        (block("a", -512) + END, r"broken \(offset 0\)"),
        (block("long", 1, b"L") * 500 + END, r"broken \(offset 0\)"),
        (block("a", 2**62), CUT),
    ],
)
def test_an_archive_that_is_broken_says_where(archive: bytes, reason: str) -> None:
    with pytest.raises(UnreadableArchiveError, match=reason):
        contents(archive, "x.tar.gz")


def test_the_members_before_a_broken_place_are_read() -> None:
    reading = members(Pieces([tarred()[:200_000]]), "x.tar", Limits())
    assert next(reading).name == "study/1/IM0001"
    with pytest.raises(UnreadableArchiveError, match=CUT):
        next(reading)


def test_a_map_of_a_sparse_member_that_is_too_long_is_refused() -> None:
    archive = bytearray(sparse([(n * 1000, b"x") for n in range(60)], 10**6))
    more = archive[512:1024]
    endless = bytes(archive[:512]) + bytes(more) * 3000
    with pytest.raises(UnreadableArchiveError, match="broken"):
        contents(gzip.compress(endless), "x.tgz")


def test_global_attributes_of_many_members_do_not_accumulate() -> None:
    def attribute(number: int) -> bytes:
        record = f" k{number}={'v' * 500_000}\n".encode()
        record = str(len(record) + 6).encode() + record
        return block("global", len(record), b"g") + padded(record) + block("a", 0)

    pieces = Pieces([attribute(n) for n in range(100)])
    tracemalloc.start()
    assert contents(pieces, "x.tar") == {}
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_a_bomb_is_refused_at_the_limit() -> None:
    pieces, deflater = [], zlib.compressobj(9, wbits=31)
    pieces.append(deflater.compress(block("zeros", 10**10)))
    pieces += [deflater.compress(bytes(10**6)) for _ in range(100)]
    source = Pieces(pieces)
    with pytest.raises(ArchiveTooLargeError, match=r"limits\.inflatedBytes, 50000000"):
        contents(source, "x.tgz", inflatedBytes=50_000_000)


def test_an_archive_has_at_most_as_many_members_as_the_limit_allows() -> None:
    archive = b"".join(block(str(n), 0, tarfile.DIRTYPE) for n in range(99))
    archive += tarred({"a": b"content"})
    assert contents(archive, "x.tar", members=100) == {"a": b"content"}
    with pytest.raises(ArchiveTooLargeError, match=r"limits\.members, 99: .* dcm2bq backfill"):
        contents(archive, "x.tar", members=99)


def test_ten_thousand_small_members_are_read_by_few_requests() -> None:
    files = {f"IM{number:05}": b"content" for number in range(10_000)}
    source = Pieces([tarred(files)])
    assert contents(source, "x.tar") == files
    assert source.requests < 170

"""The files that `dcm2bq dump` converts: local files, objects in Cloud Storage, standard input.

Of an archive, the members are converted.
"""

import glob
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from dcm2bq.archives import Member, is_archive_name, members
from dcm2bq.config import Config
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom import Conversion, Source, budget_of, convert, convert_within
from dcm2bq.errors import Dcm2BqError
from dcm2bq.files import open_regular, walk
from dcm2bq.gcs.uri import GsUri, is_uri
from dcm2bq.ignored import is_archive, matches_name_pattern
from dcm2bq.row_names import row_names
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.ignored_names import IgnoredNames, SampleFindings, first_bytes, read_from

if TYPE_CHECKING:
    from dcm2bq.gcs.store import Store


@dataclass(frozen=True, slots=True)
class File:
    """A file to convert; `convert` raises an error if it cannot be read.

    That is `UnlikeDicomError` for a file to be skipped: only its first bytes could tell. A
    `member` of an archive must be converted before the next file is requested.
    """

    path: str
    convert: Callable[[], Conversion]
    member: str | None = None

    @property
    def name(self) -> str:
        """The path, and the member of the archive there."""
        return self.path if self.member is None else f"{self.path}, member {self.member}"


class Files:
    """Finds the files that the arguments of `dump` name, and counts those that it skips."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._sniffs = config.input.other_names == "sniff"
        self._store: Store | None = None
        self._unmatched: set[str] = set()
        self._named: set[str] = set()
        self._unmatched_objects: IgnoredNames[StoredObject] = IgnoredNames()
        self._empty_objects = 0
        self._names = row_names(config.privacy)

    def names_one(self, path: str) -> bool:
        """Return whether an argument names exactly one file; folders and archives can have more."""
        if is_archive_name(path):
            return False
        if is_uri(path):
            return _names_object(GsUri.parse(path))
        return not Path(path).is_dir() and (Path(path).exists() or not glob.has_magic(path))

    @property
    def skipped(self) -> tuple[int, int]:
        """How many names did not match `input.namePattern`, and how many objects were empty."""
        return len(self._unmatched_files) + self._unmatched_objects.count, self._empty_objects

    def examine_skipped(self) -> Iterator[tuple[str, SampleFindings]]:
        """Read a sample of what was skipped because of its name; yield a noun and the findings."""
        if files := self._unmatched_files:
            names: IgnoredNames[Path] = IgnoredNames()
            for path in files:
                names.add(path, Path(path))
            yield "file", names.examine(first_bytes)[0]
        if self._unmatched_objects.count:
            yield "object", self._unmatched_objects.examine(read_from(self._get_store()))[0]

    @property
    def _unmatched_files(self) -> set[str]:
        return self._unmatched - self._named  # a glob can match a file and its folder

    def find(self, paths: Sequence[str]) -> Iterator[File]:
        """Yield the files in the order of the arguments; those of a folder sorted by name.

        A file that several arguments name is yielded once, an archive with all its members.
        """
        if len(paths) == 1:  # names nothing twice: a bucket's names need not be kept
            yield from self._find(paths[0])
            return
        seen: set[str] = set()
        for path in paths:
            yield from _unseen(self._find(path), seen)

    def _find(self, path: str) -> Iterator[File]:
        if path == "-":
            yield File("-", self._convert_stdin)
        elif is_uri(path):
            yield from self._find_objects(path)
        elif Path(path).exists() or not glob.has_magic(path):
            yield from self._find_local(path)
        else:
            yield from self._find_matching(path)

    def _find_local(self, path: str) -> Iterator[File]:
        if not Path(path).is_dir():
            self._named.add(path)
            if is_archive_name(path):
                yield from self._open_file(Path(path))
            else:
                yield File(path, partial(self._convert_file, Path(path)))
            return
        errors: list[OSError] = []
        names = sorted(walk(Path(path), errors.append))
        matching = {name for name in names if self._matches(name.relative_to(path).as_posix())}
        chosen = names if self._sniffs else [name for name in names if name in matching]
        self._unmatched.update(map(str, set(names).difference(chosen)))
        for name in chosen:
            if is_archive(self._config, name.name):
                yield from self._open_file(name)
                continue
            convert_ = partial(self._convert_file, name, sniff=name not in matching)
            yield File(str(name), convert_)
        for error in errors:
            yield _failing(str(error.filename), error)
        if not chosen and not errors:
            condition = "" if self._sniffs else " matches input.namePattern"
            yield _failing(path, FileNotFoundError(f"no file in this folder{condition}"))

    def _find_matching(self, pattern: str) -> Iterator[File]:
        """Yield each matching file once: `**` matches a folder and also the files in it."""
        seen: set[str] = set()
        for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - absolute patterns too
            yield from _unseen(self._find_local(match), seen)
        if not seen:
            yield _failing(pattern, FileNotFoundError("no file matches this pattern"))

    def _find_objects(self, path: str) -> Iterator[File]:
        uri = GsUri.parse(path)
        is_one = _names_object(uri)
        count = 0
        try:
            for stored in self._get_store().list(uri.bucket, uri.name):
                if is_one and stored.name != uri.name:
                    break
                matches = is_one or self._matches(stored.name)
                if not matches and not self._sniffs:
                    self._unmatched_objects.add(
                        stored.name, stored, storage_class=stored.storage_class
                    )
                elif not is_one and not stored.size:
                    self._empty_objects += 1
                else:
                    count += 1
                    sniff = not matches
                    if is_archive_name(stored.name) and (
                        is_one or is_archive(self._config, stored.name)
                    ):
                        yield from self._open_object(stored)
                        continue
                    yield File(stored.path, partial(self._convert_object, stored, sniff=sniff))
        except Dcm2BqError as error:
            yield _failing(path, error)
        else:
            if not count:
                yield _failing(path, FileNotFoundError("no such object"))

    def _matches(self, name: str) -> bool:
        return matches_name_pattern(self._config, name) or is_archive(self._config, name)

    def _open_file(self, path: Path) -> Iterator[File]:
        """Yield the members of a local archive."""
        try:
            stream = open_regular(path)
        except OSError as error:
            yield _failing(str(path), error)
            return
        with stream:
            yield from self._members(str(path), path.name, _LocalContent(stream))

    def _open_object(self, stored: StoredObject) -> Iterator[File]:
        """Yield the members of an archive in Cloud Storage, however long that takes."""
        content = self._get_store().open(stored, NO_DEADLINE)
        shown = self._names.object(stored)
        yield from self._members(stored.path, stored.name, content, shown)

    def _members(
        self, path: str, name: str, content: Source, shown: StoredObject | None = None
    ) -> Iterator[File]:
        """Yield the members of an archive; `shown` is the object under the name that rows have."""
        row_path, root = (shown.path, shown.bulk_data_root) if shown else (path, "")
        is_empty = True
        try:
            with closing(members(content, name, self._config.limits)) as found:
                for member in found:
                    is_empty = False
                    row_name = self._names.member(row_path, member.name)
                    convert_ = partial(self._convert_member, member, row_name, root)
                    yield File(path, convert_, member.name)
        except Dcm2BqError as error:
            yield _failing(path, error)
        else:
            if is_empty:
                yield _failing(path, FileNotFoundError("no file in this archive"))

    def _convert_member(self, member: Member, row_name: str, root: str) -> Conversion:
        if member.error:
            raise member.error
        limits = self._config.limits
        with budget_of(limits).claim(Deadline.after(limits.deadline_seconds)) as claim:
            return convert_within(
                claim,
                member.source,
                self._config,
                bulk_data_root=root,
                member=row_name,
                sniff=True,
            )

    def _convert_stdin(self) -> Conversion:
        return self._convert_stream(sys.stdin.buffer)

    def _convert_file(self, path: Path, *, sniff: bool = False) -> Conversion:
        with open_regular(path) as stream:
            return self._convert_stream(stream, sniff=sniff)

    def _convert_stream(self, stream: BinaryIO, *, sniff: bool = False) -> Conversion:
        seekable = stream if stream.seekable() else io.BytesIO(stream.read())
        return convert(seekable, self._config, sniff=sniff)

    def _convert_object(self, stored: StoredObject, *, sniff: bool) -> Conversion:
        seconds = self._config.limits.deadline_seconds
        return convert(
            self._get_store().open(stored, Deadline.after(seconds)),
            self._config,
            bulk_data_root=self._names.object(stored).bulk_data_root,
            timeout=seconds,
            sniff=sniff,
        )

    def _get_store(self) -> "Store":
        if self._store is None:
            from dcm2bq.gcs.store import Store  # noqa: PLC0415 - slow to import, needed for gs:// only

            self._store = Store(self._config)
        return self._store


class _LocalContent:
    """The content of a local file, which several threads can read at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._number = stream.fileno()
        self.size = os.fstat(self._number).st_size

    def read_at(self, offset: int, n: int, /) -> bytes:
        """Return up to `n` bytes from `offset` on."""
        return os.pread(self._number, n, offset)


def _unseen(files: Iterator[File], seen: set[str]) -> Iterator[File]:
    """Yield the files that have not been seen, and note them; members follow one another."""
    for path, same in groupby(files, attrgetter("path")):
        place = path if is_uri(path) else os.path.abspath(path)  # noqa: PTH100 - links stay
        if place not in seen:
            seen.add(place)
            yield from same


def _names_object(uri: GsUri) -> bool:
    return bool(uri.name) and not uri.name.endswith("/")


def _failing(path: str, error: Exception) -> File:
    def fail() -> NoReturn:
        raise error

    return File(path, fail)

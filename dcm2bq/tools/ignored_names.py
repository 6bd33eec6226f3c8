"""How many of the objects that are ignored because of their names are DICOM, by a sample."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dcm2bq.deadline import Deadline
from dcm2bq.dicom import PREFIXED, has_prefix
from dcm2bq.errors import ConfigError, Dcm2BqError
from dcm2bq.files import open_regular
from dcm2bq.parallel import in_parallel
from dcm2bq.stored_object import StoredObject
from dcm2bq.tools.sampling import Sample
from dcm2bq.tools.wording import counted

if TYPE_CHECKING:
    from dcm2bq.gcs.store import Store

SAMPLE = 200
"""Most objects that are read, at one request each: a share of 1.5 % is in it with 95 %."""
A_FEW = 3
"""Most objects in the sample that may be DICOM without being a finding: strays occur anywhere."""
COLD = frozenset({"NEARLINE", "COLDLINE", "ARCHIVE"})
"""Storage classes whose objects are not read: that costs retrieval, and moves them in Autoclass."""

ADVICE = "set input.otherNames to sniff, or widen input.namePattern"

_SECONDS = 60  # for all reads, which take a second or two; what is left then has failed
_THREADS = 8  # as many as read for other commands
_KINDS = 3  # named in a message
_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,4}$", re.IGNORECASE)  # longer ones may be names
_NO_EXTENSION = "no extension"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFindings:
    """What the sampled objects begin with; `dicom` holds the names of those with DICM, sorted.

    `ignored` counts all objects that are ignored because of their names, `cold` those of them
    that are in `COLD`, `read` the sampled ones, and `failed` those that could not be read.
    """

    ignored: int
    cold: int
    read: int
    failed: int
    dicom: Sequence[str]

    @property
    def is_alarming(self) -> bool:
        """Whether more than a few are DICOM."""
        return len(self.dicom) > A_FEW

    def sentences(self, *, noun: str = "object", advice: str = ADVICE) -> list[str]:
        """Return what was found, for people; nothing if all were read and none is DICOM."""
        sentences = []
        if self.dicom:
            sentences.append(f"{self.share(noun)} ({_kinds(self.dicom)}): {advice}")
        if self.cold:
            sentences.append(
                f"not sampled: {counted(self.cold, noun)} in Nearline, Coldline or Archive, where "
                "reading costs retrieval"
            )
        if self.failed:
            sentences.append(f"sampled, but not readable: {counted(self.failed, noun)}")
        return sentences

    def share(self, noun: str) -> str:
        """Return how many begin with DICM, and of how many."""
        sampled = noun if self.read == self.ignored else f"sampled {noun}"
        verb = "begins" if len(self.dicom) == 1 else "begin"
        return (
            f"{len(self.dicom):,} of {counted(self.read, sampled)} that input.namePattern excludes "
            f"{verb} with DICM"
        )


class IgnoredNames[T]:
    """Counts what is ignored because of its name, and keeps a sample of it."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._sample: Sample[T] = Sample(size)
        self._ignored = self._cold = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self._ignored

    def add(self, name: str, item: T, *, storage_class: str | None = None) -> None:
        """Count an item, and consider it for the sample unless it is in `COLD`."""
        self._ignored += 1
        if storage_class in COLD:
            self._cold += 1
            return
        self._sample.add(name, item)

    def examine(self, read: Callable[[T, int], bytes]) -> tuple[SampleFindings, Sequence[T]]:
        """Read the first bytes of each sampled item; return the findings, and what is DICOM.

        `read` returns up to that many bytes of an item. An item for which it raises is counted as
        failed, except that `ConfigError` ends the examination.
        """

        def is_dicom(entry: tuple[str, T]) -> bool | None:
            try:
                return has_prefix(read(entry[1], PREFIXED))
            except ConfigError:
                raise
            except (Dcm2BqError, OSError):
                return None

        sample = list(self._sample)
        with ThreadPoolExecutor(_THREADS) as pool:
            answers = list(in_parallel(pool, is_dicom, sample, 2 * _THREADS))
        dicom = [entry for entry, answer in zip(sample, answers, strict=True) if answer]
        findings = SampleFindings(
            ignored=self._ignored,
            cold=self._cold,
            read=len(sample),
            failed=answers.count(None),
            dicom=[name for name, _ in dicom],
        )
        return findings, [item for _, item in dicom]


def read_from(store: "Store") -> Callable[[StoredObject, int], bytes]:
    """Return a function for `examine` that reads objects, together in about a minute at most."""
    deadline = Deadline.after(_SECONDS)

    def read(stored: StoredObject, n: int) -> bytes:
        return store.open(stored, deadline).read_at(0, n)

    return read


def first_bytes(file: Path, n: int) -> bytes:
    """Return up to `n` bytes from the start of a local file."""
    with open_regular(file) as stream:
        return stream.read(n)


def _kinds(names: Sequence[str]) -> str:
    """Return the most frequent extensions of names, and never a name.

    >>> _kinds(["IM0001", "1.2.840.10008", "a.img", "B.IMG", "scan.0001"])
    '3 with no extension, 2 with .img'
    """
    extensions = Counter(
        match[0].lower() if (match := _EXTENSION.search(name)) else _NO_EXTENSION for name in names
    )
    kinds = [f"{count:,} with {kind}" for kind, count in extensions.most_common(_KINDS)]
    return ", ".join([*kinds, *(["..."] if len(extensions) > _KINDS else [])])

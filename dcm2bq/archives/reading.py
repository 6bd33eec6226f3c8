"""Read the members of an archive as far as the header of each needs."""

from collections.abc import Callable, Generator, Iterator

from dcm2bq.archives.bounds import Bounds
from dcm2bq.archives.inflated import Inflated
from dcm2bq.archives.sources import Member
from dcm2bq.archives.tar_members import FIRST_WINDOW, tar_members
from dcm2bq.archives.zip_members import zip_members
from dcm2bq.config import Limits
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.memory import WINDOW, Claim, unbounded
from dcm2bq.dicom.read.deflate import GZIP, GZIP_MAGIC, window_over
from dcm2bq.dicom.read.source import MOST_READ, Source
from dcm2bq.errors import ReadFailedError, UnreadableArchiveError

_ZIP = ".zip"
_SUFFIXES = (_ZIP, ".tar", ".tar.gz", ".tgz")


def is_archive_name(name: str) -> bool:
    """Return whether an object is an archive, by the end of its name in any case.

    >>> is_archive_name("studies/1.2.3.ZIP"), is_archive_name("scan.dcm.gz")
    (True, False)
    """
    return name.lower().endswith(_SUFFIXES)


def members(
    content: Source,
    name: str,
    limits: Limits,
    deadline: Deadline = NO_DEADLINE,
    memory: Claim | None = None,
    *,
    chosen: Callable[[str], bool] = lambda _: True,
) -> Generator[Member]:
    """Yield the members of an archive that can be DICOM objects, in the archive's order.

    These are its files that are not empty. Folders, links (which lead to content that is another
    member's), devices and the files that macOS adds (`__MACOSX/`) are skipped. Of several
    members of one name the first can be read; the second has an `error`, as encrypted and broken
    members do, and stands for the others. The checksums of members are not verified, since only
    headers are read.

    Members must be read in this order, one at a time: the source of a member is valid until the
    next one is requested. Reading it raises `UnreadableArchiveError` if the member is broken.

    content: the archive; `read_at` is called by several threads at once, unless it is gzipped.
    name: the name of the object, whose ending tells ZIP from TAR; whether a TAR is gzipped is
    seen from its content.
    memory: charged before the first member is yielded; may raise what `Claim.charge` raises.
    chosen: which members to yield, by name; of a ZIP, nothing else is read but the directory.
    Raises UnreadableArchiveError for an archive that cannot be read, or not any further, and
    ArchiveTooLargeError for one that exceeds `limits.members`, `limits.inflatedBytes`, the memory,
    or the deadline while it is being read without delay. Sources of members raise the latter too:
    it is about the archive. Errors of the content pass.
    """
    bounds = Bounds(limits, deadline, memory)
    try:
        yield from _members(content, name, bounds, chosen)
    except ReadFailedError:
        bounds.refuse_if_too_slow()
        raise


def _members(
    content: Source, name: str, bounds: Bounds, chosen: Callable[[str], bool]
) -> Iterator[Member]:
    if name.lower().endswith(_ZIP):
        if hasattr(content, "advance"):
            raise UnreadableArchiveError(
                "a ZIP with Content-Encoding gzip cannot be read by ranges: store it without"
            )
        return zip_members(content, bounds, chosen)
    head = content.read_at(0, min(FIRST_WINDOW, content.size)) if content.size else b""
    if not head.startswith(GZIP_MAGIC):
        return tar_members(content, bounds, chosen, head)
    bounds.charge(WINDOW * MOST_READ)
    compressed = window_over(content, NO_DEADLINE, unbounded())
    compressed.hold(0, head)
    inflated = Inflated(compressed, GZIP, bounds)
    return tar_members(inflated, bounds, chosen)

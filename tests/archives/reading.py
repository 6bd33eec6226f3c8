"""Read archives that tests have built."""

from typing import Any

from dcm2bq import config
from dcm2bq.archives import Member, members
from dcm2bq.config import Limits
from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.dicom.read.source import Source
from tests.support.slices import Pieces

FILES = {
    "study/1/IM0001": b"one" * 10,
    "study/2/IM0001": b"two" * 100_000,
    "a#b?c&d=é.dcm": bytes(300_000),
    "line\nbreak": b"four",
    "studies.zip": b"PK\5\6" + bytes(18),
}
"""Members with odd names of every kind; the last is an archive."""


def limits_of(**limits: Any) -> Limits:
    return config.from_overrides({"limits": limits}).limits


def members_of(
    archive: bytes, name: str, deadline: Deadline = NO_DEADLINE, **limits: Any
) -> list[Member]:
    """Return the members of an archive; those of a ZIP or TAR can still be read."""
    return list(members(Pieces([archive]), name, limits_of(**limits), deadline))


def contents(source: Source | bytes, name: str, **limits: Any) -> dict[str, bytes | str]:
    """Return the content of each member, read to its end, or why it cannot be read."""
    source = Pieces([source]) if isinstance(source, bytes) else source
    return {
        member.name: str(member.error) if member.error else whole(member.source)
        for member in members(source, name, limits_of(**limits))
    }


def whole(source: Source, step: int = 100_000) -> bytes:
    """Return the content of a source, read in order."""
    return b"".join(
        source.read_at(offset, min(step, source.size - offset))
        for offset in range(0, source.size, step)
    )

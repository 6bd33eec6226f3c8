"""What reading one archive may cost: members, inflated bytes, memory and time."""

import time

from dcm2bq.config import Limits
from dcm2bq.deadline import Deadline
from dcm2bq.dicom.memory import Claim
from dcm2bq.errors import ArchiveTooLargeError, ReadFailedError

_STALLED = 8
"""Nothing read for 1/8 of the time: the service is slow, and the archive need not be too large."""
_BACKFILL = "index the archive with dcm2bq backfill"


class Bounds:
    """The limits of one archive, and what has been used of them; for one thread."""

    def __init__(self, limits: Limits, deadline: Deadline, memory: Claim | None) -> None:
        self.most_members = limits.members
        self._most_inflated = limits.inflated_bytes
        self._deadline = deadline
        self._memory = memory
        self._members = self._inflated = 0
        self._progress_at = time.monotonic()

    def charge(self, n: int) -> None:
        """Charge `n` bytes of memory."""
        if self._memory is not None:
            self._memory.charge(n)

    def count_member(self) -> None:
        """Count a member of any kind; raise `ArchiveTooLargeError` if it is one too many."""
        self._members += 1
        self.refuse_more_members(self._members)
        self.check_time()
        self._progress_at = time.monotonic()

    def refuse_more_members(self, count: int) -> None:
        """Raise `ArchiveTooLargeError` if an archive may not have that many members."""
        if count > self.most_members:
            raise ArchiveTooLargeError(
                f"the archive has more members than limits.members, {self.most_members}: "
                f"{_BACKFILL} and a higher limit"
            )

    def count_inflated(self, n: int) -> None:
        """Count `n` bytes that were inflated; raise `ArchiveTooLargeError` beyond the limit."""
        self._inflated += n
        if self._inflated > self._most_inflated:
            raise ArchiveTooLargeError(
                f"the archive inflates beyond limits.inflatedBytes, {self._most_inflated}: "
                f"{_BACKFILL} and a higher limit"
            )
        self.check_time()
        self._progress_at = time.monotonic()

    def check_time(self) -> None:
        """Raise `ArchiveTooLargeError` or `ReadFailedError` once the deadline has passed."""
        if self._deadline.has_passed:
            self.refuse_if_too_slow()
            raise ReadFailedError("the deadline passed while the archive was being read")

    def refuse_if_too_slow(self) -> None:
        """Raise `ArchiveTooLargeError` if the deadline passed although reading never stopped."""
        deadline = self._deadline
        if not deadline.has_passed:
            return
        if deadline.at - self._progress_at < (deadline.at - deadline.since) / _STALLED:
            raise ArchiveTooLargeError(
                f"{self._members} members were read when limits.deadlineSeconds had passed: "
                f"{_BACKFILL}, which has no such deadline"
            )

"""What reading one archive may cost: members, inflated bytes, memory and time."""

import time

from dcm2bq.config import Limits
from dcm2bq.deadline import Deadline
from dcm2bq.dicom.memory import Claim
from dcm2bq.errors import ArchiveTooLargeError, ReadFailedError, UnreadableDicomError

_DELAYED = 8
"""An archive that was delayed for 1/8 of its time need not be too large: it is read again."""
_PAUSE_SECONDS = 1
"""Reading and converting a member takes less. What takes longer is a delay: a slow service, a slow
insert, or other objects that hold the memory."""
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
        self._delayed = self._progress_at - deadline.since

    def charge(self, n: int) -> None:
        """Charge `n` bytes of memory; raise `ArchiveTooLargeError` if the budget is smaller."""
        if self._memory is None:
            return
        try:
            self._memory.charge(n)
        except UnreadableDicomError:
            raise ArchiveTooLargeError(
                "the archive takes more memory than limits.memoryBytes allows: "
                f"{_BACKFILL} where more is available"
            ) from None

    def count_member(self) -> None:
        """Count a member of any kind; raise `ArchiveTooLargeError` if it is one too many."""
        self._members += 1
        self.refuse_more_members(self._members)
        self.count_inflated(0)  # the last member may have exceeded the limit

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
        self._note_progress()

    def check_time(self) -> None:
        """Raise `ArchiveTooLargeError` or `ReadFailedError` once the deadline has passed."""
        if self._deadline.has_passed:
            self.refuse_if_too_slow()
            raise ReadFailedError("the deadline passed while the archive was being read")

    def refuse_if_too_slow(self) -> None:
        """Raise `ArchiveTooLargeError` if the deadline passed although nothing delayed reading."""
        deadline = self._deadline
        if not deadline.has_passed:
            return
        delayed = self._delayed + deadline.at - self._progress_at
        if delayed < (deadline.at - deadline.since) / _DELAYED:
            raise ArchiveTooLargeError(
                f"{self._members} members were read when limits.deadlineSeconds had passed: "
                f"{_BACKFILL}, which has no such deadline"
            )

    def _note_progress(self) -> None:
        """Check the time, and count it as a delay if nothing was read for long."""
        self.check_time()
        now = time.monotonic()
        pause, self._progress_at = now - self._progress_at, now
        if pause > _PAUSE_SECONDS:
            self._delayed += pause

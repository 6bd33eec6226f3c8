"""The moment by which work must be done: one value for requests, waits and conversions."""

import math
import time
from typing import Self

from dcm2bq.errors import ReadFailedError, UnreadableDicomError

_OWN_SHARE = 8
"""An object is too slow by itself if computing takes more than 1/8 of its time.

A larger part would miss slow objects, since conversions share cores. A smaller one would blame
ordinary objects that share their process with expensive ones or wait for a slow service: they
compute far less and must be retried.
"""


class Deadline:
    """A moment on the clock of `time.monotonic`; all durations are in seconds.

    It keeps the moment `since` when its time began, by default now, and how much CPU time the
    thread that makes it had used by then, so that `check` can tell a slow object from a slow
    service. `check` is therefore for that thread alone; everything else is for any thread.

        >>> deadline = Deadline.after(50)
        >>> 49 < deadline.left <= 50
        True
        >>> deadline.within(5).left <= 5
        True
    """

    __slots__ = ("_computed", "at", "since")

    def __init__(self, at: float = math.inf, since: float | None = None) -> None:
        self.at = at
        self.since = time.monotonic() if since is None else since
        self._computed = time.thread_time()

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline that many seconds from now."""
        now = time.monotonic()
        return cls(now + seconds, now)

    @property
    def left(self) -> float:
        """The time that is left; negative once the deadline has passed."""
        return self.at - time.monotonic()

    @property
    def has_passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at

    def within(self, seconds: float) -> "Deadline":
        """Return the earlier of this deadline and the one that many seconds from now."""
        now = time.monotonic()
        return Deadline(min(self.at, now + seconds), now)

    def at_least(self, seconds: float) -> "Deadline":
        """Return the later of this deadline and the one that many seconds from now."""
        now = time.monotonic()
        return Deadline(max(self.at, now + seconds), now)

    def or_after(self, seconds: float) -> "Deadline":
        """Return this deadline, or the one that many seconds from now if this one never passes."""
        return self if self.at < math.inf else Deadline.after(seconds)

    def share(self, part: float) -> "Deadline":
        """Return the deadline at that part, between 0 and 1, of the time that is left."""
        now = time.monotonic()
        return Deadline(now + (self.at - now) * part, now)

    def restarted(self) -> "Deadline":
        """Return the same deadline for another attempt: CPU time counts from now on.

        The moment when its time began stays, so that time spent waiting is not held against
        the object.
        """
        return Deadline(self.at, self.since)

    def check(self) -> None:
        """Raise once the deadline has passed.

        Raises `UnreadableDicomError` if the object takes that long to convert, and
        `ReadFailedError` if the time went into waiting for others.
        """
        if time.monotonic() > self.at:
            computed = time.thread_time() - self._computed
            if 0 < (self.at - self.since) / _OWN_SHARE < computed:
                raise UnreadableDicomError(
                    f"not converted within limits.deadlineSeconds: {computed:.1f} seconds of "
                    "computing were not enough"
                )
            raise ReadFailedError("the deadline passed while the header was being read")


NO_DEADLINE = Deadline()

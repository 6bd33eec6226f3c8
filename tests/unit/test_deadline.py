"""One moment for all who work on an event, and whose fault it is when it passes."""

import time

import pytest

from dcm2bq.deadline import NO_DEADLINE, Deadline
from dcm2bq.errors import ReadFailedError, UnreadableDicomError


def compute(seconds: float) -> None:
    """Use that much CPU time in this thread, however busy the machine is."""
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def test_within_only_shortens_and_at_least_only_extends_a_deadline() -> None:
    deadline = Deadline.after(100)
    assert deadline.within(1000).at == deadline.at
    assert deadline.within(10).left == pytest.approx(10, abs=1)
    assert deadline.at_least(10).at == deadline.at
    assert deadline.at_least(1000).left == pytest.approx(1000, abs=1)
    assert deadline.share(0.25).left == pytest.approx(25, abs=1)
    assert deadline.or_after(10) is deadline


def test_no_deadline_never_passes() -> None:
    NO_DEADLINE.check()
    assert not NO_DEADLINE.has_passed
    assert NO_DEADLINE.within(10).left == pytest.approx(10, abs=1)
    assert NO_DEADLINE.or_after(10).left == pytest.approx(10, abs=1)


def test_time_spent_waiting_makes_the_object_retryable() -> None:
    deadline = Deadline.after(-1)
    assert deadline.has_passed
    assert deadline.left < 0
    with pytest.raises(ReadFailedError):
        deadline.check()


def test_time_spent_computing_makes_the_object_unreadable() -> None:
    deadline = Deadline.after(0.1)
    compute(0.1)
    with pytest.raises(UnreadableDicomError, match=r"limits\.deadlineSeconds"):
        deadline.check()


def test_the_computing_of_an_earlier_attempt_does_not_count() -> None:
    deadline = Deadline.after(0.1)
    compute(0.1)
    with pytest.raises(ReadFailedError):
        deadline.restarted().check()


def test_waiting_before_the_attempt_is_not_held_against_the_object() -> None:
    """The object may compute for an eighth of the whole time, not of what is left of it."""
    now = time.monotonic()
    deadline = Deadline(now + 0.1, since=now - 60)
    compute(0.1)
    with pytest.raises(ReadFailedError):
        deadline.check()

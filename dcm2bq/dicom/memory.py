"""One budget of memory for all conversions of a process: `limits.memoryBytes`.

Each conversion has a claim, and charges ahead to it what its next step will cost, by the
prices below. An ordinary object never notices: its claim begins with more than it needs.

Why nobody waits for ever. Of the conversions that wait for more memory only the oldest keeps
what it has; a younger one gives way: it drops everything, waits until it is the oldest that
converts, and begins again. So the others that hold memory are running, and end or come to
wait themselves; then all memory is the oldest one's, and it goes on, unless what it needs
exceeds the budget by itself, which is an error. The one that has given way is the oldest when
it begins again, and does not give way a second time. A part of the budget is kept for
beginnings: ordinary objects pass while an enormous one takes, or waits for, all the rest.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Self

from dcm2bq import machine
from dcm2bq.config import Limits
from dcm2bq.errors import ConfigError, ReadFailedError, UnreadableDicomError

MIB = 1024 * 1024

# Prices, in bytes, measured with CPython 3.13 as growth of the resident memory over 400,000
# elements of each kind; docs/PERFORMANCE.md has the table.
ELEMENT = 224
"""An element or item as read, without the bytes of its value.

Measured: 131 for an empty element, 180 with a value, 229 for an item of one element, which is
charged as two. The rest of the price covers what the same elements take in JSON; it is 16 less
than for tuples, which have a header for the garbage collector.
"""
REFERENCE = 200
"""A reference to a value that stays in the object, beyond an ordinary element in JSON."""
VALUE = 64
"""One of several values as a Python object, in its list: text of a few characters."""
JSON = 64
"""An element in JSON, without its value."""
ESCAPED = 6
"""A byte of a value in JSON, at the most: a control character."""
PART = 320
"""An element that is measured because the metadata must become smaller."""
WINDOW = 3
"""Copies of the bytes read last: those before, the new ones, and both together."""
ROW = 4
"""Copies of the JSON text on its way into a row: text, row, and twice the request."""

FIRST = 4 * MIB
"""What a claim begins with: `AHEAD`, and what the second read of a small object takes."""
AHEAD = MIB
"""What a step may cost before it is charged: 32 KiB of elements without value, 4,096."""
_BLOCK = MIB
"""The least by which a claim grows, so that few steps need the lock."""
_BEGINNINGS = 16
"""As many claims can begin, whatever the others hold, where the budget allows for it."""
_SHARE = 0.7
"""Of what the process may use: the rest is for what has no price, and for fragmentation."""
_LEAST = 16 * MIB
_RETURNED = 16 * MIB
"""A larger claim's memory goes back to the system at its end, which takes milliseconds."""
_LARGE = 8
"""A claim for more than this part of the budget is reported as unusually large."""


class GiveWayError(Exception):
    """An older conversion needs the memory: drop everything, wait, begin again."""


class Claim:
    """What one conversion may use; charged by its own thread alone."""

    __slots__ = (
        "_budget",
        "_on_large",
        "age",
        "count",
        "deadline",
        "granted",
        "kept",
        "since",
        "used",
    )

    def __init__(
        self,
        budget: "Budget | None",
        age: int,
        deadline: float | None,
        on_large: Callable[[int], object] | None,
    ) -> None:
        self._budget = budget
        self._on_large = on_large
        self.age = age
        """The claim's number: the oldest has the least."""
        self.deadline = deadline
        self.since = time.monotonic()
        """When it was made: before it waited for anything."""
        self.granted = 0
        self.used = AHEAD
        self.count = self.kept = 0
        """Elements read so far, and the bytes of their values."""

    def __enter__(self) -> Self:
        """Begin."""
        if self._budget is not None:
            self._budget.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back."""
        self.settle(0)

    def charge(self, n: int) -> None:
        """Pay for the next `n` bytes; wait for them where the budget is used up.

        Raises `GiveWayError` where an older conversion waits, `UnreadableDicomError` where
        the budget can never do, `ReadFailedError` when the deadline passes first.
        """
        self.used += n
        if self.used > self.granted:
            self._grow()

    def charge_elements(self, count: int, kept: int) -> None:
        """Pay for elements as they are read, of which `kept` bytes are kept."""
        self.count += count
        self.kept += kept
        self.charge(ELEMENT * count + kept)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Give back at the end what elements were charged: they were read on trial and dropped."""
        count, kept = self.count, self.kept
        try:
            yield
        finally:
            self.used -= ELEMENT * (self.count - count) + self.kept - kept
            self.count, self.kept = count, kept

    @property
    def read(self) -> int:
        """The memory of all elements read so far."""
        return ELEMENT * self.count + self.kept

    def settle(self, n: int) -> None:
        """End the conversion: give back all but `n` bytes."""
        if self._budget is not None:
            self._budget.leave(self, n)

    def begin_again(self) -> None:
        """Give everything back, wait until no older claim converts, and begin again."""
        self.used, self.count, self.kept = AHEAD, 0, 0
        if self._budget is not None:
            self._budget.begin_again(self)

    def _grow(self) -> None:
        if self._budget is None:
            return
        if self._on_large and self.used > self._budget.total // _LARGE:
            self._on_large(self.used)
            self._on_large = None
        self._budget.grow(self)


class Budget:
    """The bytes that all claims of a process share."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._beginnings = max(min(_BEGINNINGS, total // _LARGE // FIRST), 1)
        self._most = total - self._beginnings * FIRST
        self._free = total
        self._ages = count()
        self._converting: set[int] = set()
        self._small: set[int] = set()
        """Those of them that hold no more than what they began with."""
        self._waiting: set[int] = set()
        """Those of them that wait for more."""
        self._sleepers = 0
        """How many threads wait for a change, for whatever reason."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def claim(
        self, deadline: float | None = None, on_large: Callable[[int], object] | None = None
    ) -> Claim:
        """Return a claim for one conversion, which holds it as a context.

        Past `deadline`, by `time.monotonic`, it waits no longer. `on_large` is called once,
        with the bytes, before the claim becomes unusually large.
        """
        return Claim(self, next(self._ages), deadline, on_large)

    def begin(self, claim: Claim) -> None:
        """Give a claim what each begins with."""
        with self._lock:
            while self._free < FIRST or (self._waiting and not self._has_place):
                self._wait(claim)
            self._start(claim)

    @property
    def free(self) -> int:
        """The bytes that nobody holds."""
        return self._free

    def grow(self, claim: Claim) -> None:
        """Let a claim hold what it uses, when its turn comes."""
        if claim.used > self._most:
            raise UnreadableDicomError(
                f"the conversion takes more memory than limits.memoryBytes allows, {self.total}"
            )
        wanted = min(max(claim.used, claim.granted + _BLOCK), self._most)
        with self._lock:
            self._small.discard(claim.age)
            self._waiting.add(claim.age)
            self._wake()  # a younger one that waits has to give way now
            try:
                while not self._take(claim, wanted):
                    if claim.age != min(self._waiting):
                        raise GiveWayError
                    self._wait(claim)
            finally:
                self._waiting.remove(claim.age)
                self._wake()

    def leave(self, claim: Claim, kept: int) -> None:
        """Take a claim out of those that convert; it keeps so many bytes at most."""
        self._return(claim)
        with self._lock:
            self._converting.discard(claim.age)
            self._small.discard(claim.age)
            if claim.granted > kept:
                self._give_back(claim, kept)
            else:
                self._wake()

    def begin_again(self, claim: Claim) -> None:
        """Give a claim, which gives way, back what it began with, as soon as it is the oldest."""
        self._return(claim)
        with self._lock:
            self._give_back(claim, 0)
            while self._free < FIRST or claim.age != min(self._converting):
                self._wait(claim)
            self._start(claim)

    def _start(self, claim: Claim) -> None:
        self._free -= FIRST
        claim.granted = FIRST
        self._converting.add(claim.age)
        self._small.add(claim.age)

    @property
    def _has_place(self) -> bool:
        """Whether one more can begin without taking from those that wait."""
        return len(self._small) < self._beginnings

    def _take(self, claim: Claim, wanted: int) -> bool:
        """Let a claim hold what it wants, unless too little is free or an older one waits."""
        more = wanted - claim.granted
        kept = max(self._beginnings - len(self._small), 0) * FIRST
        if claim.age != min(self._waiting) or more > self._free - kept:
            return False
        self._free -= more
        claim.granted = wanted
        return True

    def _return(self, claim: Claim) -> None:
        """Let the system have what a large claim has used, before others use as much."""
        if claim.granted > _RETURNED:
            machine.return_memory()

    def _give_back(self, claim: Claim, kept: int) -> None:
        self._free += claim.granted - kept
        claim.granted = kept
        self._wake()

    def _wake(self) -> None:
        """Let those that wait look again; the lock is held."""
        if self._sleepers:
            self._changed.notify_all()

    def _wait(self, claim: Claim) -> None:
        """Wait for a change; the lock is held."""
        left = None if claim.deadline is None else claim.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise ReadFailedError("no memory became free before the deadline")
        self._sleepers += 1
        try:
            self._changed.wait(left)
        finally:
            self._sleepers -= 1


def unbounded() -> Claim:
    """Return a claim without a budget: what it counts is bounded elsewhere."""
    return Claim(None, 0, None, None)


_budgets: dict[tuple[Limits, int], Budget] = {}
_making = threading.Lock()


def budget_of(limits: Limits, *, processes: int = 1) -> Budget:
    """Return the budget of this process under some limits; made once.

    By default it takes its part of what several `processes` like this one may use. Raises
    `ConfigError` for limits that it can never satisfy.
    """
    key = limits, processes
    if (budget := _budgets.get(key)) is None:
        with _making:
            budget = _budgets.get(key) or Budget(_total(limits, processes))
            machine.keep_memory_together()
            _budgets[key] = budget
    return budget


def _total(limits: Limits, processes: int) -> int:
    total = limits.memory_bytes
    if total is None:
        total = int(_SHARE * machine.memory_limit() / processes) - machine.resident_bytes()
        total = max(total, _LEAST)
    defaults = Limits()
    least = {
        "headerBytes": (limits.header_bytes, defaults.header_bytes, 1),
        "outputBytes": (limits.output_bytes, defaults.output_bytes, ROW),
        "elements": (limits.elements, defaults.elements, ELEMENT),
    }
    for name, (value, default, price) in least.items():
        # The defaults stand for "as much as fits"; what somebody asks for must be possible.
        if value > default and value * price > total:
            raise ConfigError(
                f"limits.{name}: {value} takes {value * price} bytes of memory, more than "
                f"limits.memoryBytes, {total}: lower it, or give the process more memory"
            )
    return total

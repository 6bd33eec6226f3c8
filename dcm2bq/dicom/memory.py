"""Share a budget of memory among all conversions of a process: `limits.memoryBytes`.

Each conversion holds a claim. Before a step it charges the claim with the memory that the step will
take, by the prices below. An ordinary object never waits: its claim starts with more than it needs.

No conversion waits forever. Of the claims that wait for more memory, only the oldest keeps what it
has. A younger one gives way: it drops everything, waits until it is the oldest that converts, and
begins again. All others that hold memory are running, and will end or wait in turn. In the end the
oldest has the whole budget: it either continues or exceeds the budget alone, which is an error. A
claim that has begun again may have to give way again, but only to a claim that was made before it
and begins after it: no more often than claims were waiting to begin. A part of the budget is
reserved for beginnings, so that ordinary objects pass while an enormous one holds or waits for the
rest.

An archive keeps its claim while its members are converted, each with another claim. So only one
archive at a time does that (`Budget.nesting`), and its members do not wait for what it holds
(`Claim.beside`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Self

from dcm2bq import machine
from dcm2bq.config import Limits
from dcm2bq.deadline import NO_DEADLINE, Deadline
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
"""A reference to a value that stays in the object, in addition to its element in JSON."""
VALUE = 64
"""One of several values as a Python object in a list: a text of a few characters."""
JSON = 64
"""An element in JSON, without its value."""
ESCAPED = 6
"""A byte of a value in JSON, at most: a control character, as `\\u0001`."""
PART = 320
"""An element that is measured because the metadata must fit into a row."""
WINDOW = 3
"""Copies of the bytes read last: the old ones, the new ones, and both joined."""
ROW = 4
"""Copies of the JSON text on its way into a row: text, row, and twice the request."""

FIRST = 4 * MIB
"""What a claim starts with: `AHEAD`, and the second read of a small object."""
AHEAD = MIB
"""What a step may cost before it is charged: 4,096 elements without a value, in 32 KiB."""
_BLOCK = MIB
"""Least growth of a claim, so that few steps need the lock."""
_BEGINNINGS = 16
"""Claims that can begin whatever the others hold, if the budget is large enough: twice the
concurrency for which the function is deployed."""
_SHARE = 0.7
"""Part of the memory of the process: the rest is for what has no price, and for fragmentation."""
_LEAST = 16 * MIB
"""Smallest budget, however little memory there is; `limits.memoryBytes` has the same bound."""
_RETURNED = 16 * MIB
"""The memory of a larger claim is returned to the system, which takes milliseconds."""
_LARGE = 8
"""A claim that exceeds the budget divided by this is reported as unusually large."""


class GiveWayError(Exception):
    """An older conversion needs the memory: drop everything and call `Claim.begin_again`."""


class Claim:
    """The memory of one conversion; only the thread that converts may charge it."""

    __slots__ = (
        "_budget",
        "_on_large",
        "age",
        "beside",
        "count",
        "deadline",
        "granted",
        "kept",
        "used",
    )

    def __init__(
        self,
        budget: "Budget | None",
        age: int,
        deadline: Deadline,
        on_large: Callable[[int], object] | None,
        beside: int = 0,
    ) -> None:
        self._budget = budget
        self._on_large = on_large
        self.age = age
        """The number of the claim: the oldest has the lowest."""
        self.deadline = deadline
        self.beside = beside
        """Bytes that the owner of the claim holds in another one for as long."""
        self.granted = 0
        """Bytes taken from the budget."""
        self.used = AHEAD
        """Bytes charged so far."""
        self.count = self.kept = 0
        """Elements read so far, and bytes of their values."""

    def __enter__(self) -> Self:
        """Wait until the conversion can begin."""
        if self._budget is not None:
            self._budget.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Return everything to the budget."""
        self.settle(0)

    def charge(self, n: int) -> None:
        """Charge the next `n` bytes; wait for them if the budget is exhausted.

        Raises `GiveWayError` if an older conversion is waiting, `UnreadableDicomError` if the
        budget can never suffice, and `ReadFailedError` if the deadline passes first.
        """
        self.used += n
        if self.used > self.granted:
            self._grow()

    def charge_elements(self, count: int, kept: int) -> None:
        """Charge `count` elements as read, and `kept` bytes of their values."""
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
        """The memory of all elements read so far, in bytes."""
        return ELEMENT * self.count + self.kept

    def settle(self, n: int) -> None:
        """End the conversion: return all but `n` bytes to the budget."""
        if self._budget is not None:
            self._budget.leave(self, n)

    def begin_again(self) -> None:
        """Return everything, wait until no older claim converts, and begin again."""
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
    """The memory, in bytes, that all claims of a process share."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.nesting = threading.Lock()
        """Held by a thread that claims memory beside a claim of its own, as two could wait for each
        other's."""
        # An eighth of a small budget is reserved for beginnings, but at least one.
        self._beginnings = max(min(_BEGINNINGS, total // _LARGE // FIRST), 1)
        self._most = total - self._beginnings * FIRST
        self._free = total
        self._ages = count()
        self._converting: set[int] = set()
        """The ages of the claims that convert."""
        self._small: set[int] = set()
        """Those among them that hold only what they started with."""
        self._waiting: set[int] = set()
        """Those among them that wait for more."""
        self._sleepers = 0
        """Threads that wait for a change, for any reason."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def claim(
        self,
        deadline: Deadline = NO_DEADLINE,
        on_large: Callable[[int], object] | None = None,
        *,
        beside: int = 0,
    ) -> Claim:
        """Return a claim for one conversion, to be used in a `with` statement.

        It waits until `deadline` at most. `on_large` is called once, with the number of bytes,
        before the claim becomes unusually large. `beside` is what the caller holds for as long,
        in bytes: the claim does not wait for it.
        """
        return Claim(self, next(self._ages), deadline, on_large, beside)

    def begin(self, claim: Claim) -> None:
        """Grant a claim its first bytes, when there is memory and nobody waits for it."""
        with self._lock:
            while self._free < FIRST or (self._waiting and not self._has_place):
                self._wait(claim)
            self._start(claim)

    @property
    def free(self) -> int:
        """The bytes that no claim holds."""
        return self._free

    def grow(self, claim: Claim) -> None:
        """Grant a claim what it has been charged, when its turn comes."""
        most = self._most - claim.beside
        if claim.used > most:
            raise UnreadableDicomError(
                f"the conversion takes more memory than limits.memoryBytes allows, {self.total}"
            )
        total = min(max(claim.used, claim.granted + _BLOCK), most)
        with self._lock:
            self._small.discard(claim.age)
            self._waiting.add(claim.age)
            self._wake()  # a younger claim that is waiting must give way now
            try:
                while not self._take(claim, total):
                    if claim.age != min(self._waiting):
                        raise GiveWayError
                    self._wait(claim)
            finally:
                self._waiting.remove(claim.age)
                self._wake()

    def leave(self, claim: Claim, kept: int) -> None:
        """End the conversion of a claim, which keeps at most `kept` bytes."""
        self._trim(claim)
        with self._lock:
            self._converting.discard(claim.age)
            self._small.discard(claim.age)
            if claim.granted > kept:
                self._give_back(claim, kept)
            else:
                self._wake()

    def begin_again(self, claim: Claim) -> None:
        """Take everything from a claim; start it again as soon as it is the oldest."""
        self._trim(claim)
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
        """Whether another claim can begin with the reserved memory."""
        return len(self._small) < self._beginnings

    def _take(self, claim: Claim, total: int) -> bool:
        """Grant a claim `total` bytes, unless too little is free or an older claim waits."""
        more = total - claim.granted
        reserved = max(self._beginnings - len(self._small), 0) * FIRST
        if claim.age != min(self._waiting) or more > self._free - reserved:
            return False
        self._free -= more
        claim.granted = total
        return True

    def _trim(self, claim: Claim) -> None:
        """Return the memory of a large claim to the system, before others take as much."""
        if claim.granted > _RETURNED:
            machine.return_memory()

    def _give_back(self, claim: Claim, kept: int) -> None:
        self._free += claim.granted - kept
        claim.granted = kept
        self._wake()

    def _wake(self) -> None:
        """Let all waiting threads check again; the lock must be held."""
        if self._sleepers:
            self._changed.notify_all()

    def _wait(self, claim: Claim) -> None:
        """Wait for a change, until the deadline at most; the lock must be held."""
        left = claim.deadline.left
        if left <= 0:
            raise ReadFailedError("no memory became free before the deadline")
        self._sleepers += 1
        try:
            self._changed.wait(min(left, threading.TIMEOUT_MAX))
        finally:
            self._sleepers -= 1


def unbounded() -> Claim:
    """Return a claim without a budget, which only counts."""
    return Claim(None, 0, NO_DEADLINE, None)


_budgets: dict[tuple[Limits, int], Budget] = {}
_making = threading.Lock()


def budget_of(limits: Limits, *, processes: int = 1) -> Budget:
    """Return the budget of this process for the given limits; every call returns the same.

    If `limits.memoryBytes` is not set, `processes` like this one share the memory evenly. Raises
    `ConfigError` for limits that the budget can never satisfy.
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
        # A default means "as much as fits", but a limit that somebody has raised must be possible.
        if value > default and value * price > total:
            raise ConfigError(
                f"limits.{name}: {value} would take {value * price} bytes of memory, more than "
                f"limits.memoryBytes, {total}: lower it, or give the process more memory"
            )
    return total

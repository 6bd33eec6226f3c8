"""A clock on which pauses cost no time, for tests of what happens after them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from dcm2bq import deadline, transport


class LeapingTime:
    """Replaces the module `time`: a pause counts in full, but lasts only as long as `rest`."""

    def __init__(self, rest: Callable[[], object] = lambda: None) -> None:
        self.rest = rest
        self._leapt = 0.0

    def monotonic(self) -> float:
        """Return the time, pauses included."""
        return time.monotonic() + self._leapt

    def sleep(self, seconds: float) -> None:
        """Pause."""
        self.rest()
        self._leapt += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def leaping(*modules: ModuleType) -> Iterator[LeapingTime]:
    """Let the pauses of modules take no time, nor those between the attempts of a request.

    Deadlines count them all the same.
    """
    clock = LeapingTime()
    with pytest.MonkeyPatch.context() as patch:
        for module in (deadline, transport, *modules):
            patch.setattr(module, "time", clock)
        yield clock

"""Running the command line in this process, and the result."""

import sys
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from types import TracebackType
from typing import Protocol, Self


class Output(Protocol):
    """What a command has printed; pytest's `capsys`, for one."""

    def readouterr(self) -> tuple[str, str]:
        """Return what was printed on stdout and stderr since the last call."""


class Captured:
    """The output of a block, for fixtures that outlive a test."""

    def __enter__(self) -> Self:
        self._before = sys.stdout, sys.stderr
        self._bytes = BytesIO(), BytesIO()
        sys.stdout, sys.stderr = (
            TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in self._bytes
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout, sys.stderr = self._before

    def readouterr(self) -> tuple[str, str]:
        """Return what was printed on stdout and stderr since the last call."""
        out, err = (stream.getvalue().decode() for stream in self._bytes)
        for stream in self._bytes:
            stream.seek(0)
            stream.truncate()
        return out, err


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def run(self) -> str:
        """The id of the run that a backfill names."""
        return self.err.partition("run ")[2].partition(":")[0]

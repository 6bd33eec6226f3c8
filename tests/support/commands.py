"""The result of running the command line."""

from dataclasses import dataclass


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

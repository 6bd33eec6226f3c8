"""A line of progress on stderr, for commands that run for long."""

import sys
import time

import click

from dcm2bq.tools.display import printable, say
from dcm2bq.tools.wording import counted

_SECONDS = 30.0
"""Between two lines where there is no terminal, as in the log of a job that runs for hours."""
_OBJECTS = 1000  # of a listing, between two updates: as many as one request brings


class ProgressLine:
    """A line of progress, updated in place on a terminal and printed now and then elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._printed = time.monotonic()
        self._text = ""

    def show(self, text: str) -> None:
        """Replace the text."""
        self._text = text
        if self._is_terminal:
            click.echo(f"\r\033[K{printable(text)}", err=True, nl=False)
        elif time.monotonic() - self._printed > _SECONDS:
            self._printed = time.monotonic()
            say(text, err=True)

    def end(self) -> None:
        """End the line, or print its last text where there is no terminal."""
        if self._text:
            click.echo(err=True) if self._is_terminal else say(self._text, err=True)


class ListingProgress:
    """Shows how many objects were listed to find those with some hashed names."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._listed = 0

    def add(self, sought: int) -> None:
        """Count an object; `sought` is the number of hashes."""
        self._listed += 1
        if self._listed % _OBJECTS == 0:
            listed = counted(self._listed, "object")
            self._line.show(f"{listed} listed to find {sought:,} by hash")

    def end(self) -> None:
        """End the line, if there is one."""
        self._line.end()

"""A line of progress on stderr, for commands that run for long."""

import sys
import time

import click

from dcm2bq.tools.display import printable, say

_SECONDS = 30.0
"""Between two lines where there is no terminal, as in the log of a job that runs for hours."""


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

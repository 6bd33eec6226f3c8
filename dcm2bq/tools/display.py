"""Printing for commands: escapes whatever could control a terminal."""

import click

from dcm2bq.terminal import printable, printable_json

__all__ = ["printable", "printable_json", "say", "say_json"]


def say(line: str = "", *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr with `err`."""
    click.echo(printable(line), err=err)


def say_json(document: bytes | str, *, end: str = "\n") -> None:
    """Print JSON on stdout, in UTF-8 whatever the encoding of the terminal."""
    text = document if isinstance(document, str) else document.decode()
    click.echo((printable_json(text) + end).encode(), nl=False)

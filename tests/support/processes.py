"""Processes that end with the tests, however those end; and how to find them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from dcm2bq.local import servers

_MARK = "TEST_MARK"


def guarded(command: Sequence[str | Path]) -> list[str]:
    """Return a command that Linux kills when the thread that started it ends."""
    program, *arguments = map(str, command)
    return [*servers._guarded(), shutil.which(program) or program, *arguments]


def marked(mark: str) -> dict[str, str]:
    """Return the variables by which the processes of an environment are found."""
    return {_MARK: mark}


def processes(mark: str) -> dict[int, str]:
    """Return the command lines of the processes that run with a mark, by their ids."""
    variable = f"{_MARK}={mark}".encode()
    running = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if variable in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_text().replace("\0", " ")
                    running[int(folder.name)] = command
            except OSError:
                continue
    return running

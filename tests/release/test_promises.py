"""What a release promises to keep is there in every later one, until the next major version.

`promises/VERSION.txt` lists the names and types, a line each; docs/UPGRADING.md says what they
promise. As a program it writes the list of the version in the checkout: part of each release.
"""

import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.version import Version

from dcm2bq import __version__, cli, config, dicom, schema

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).with_name("promises")
RELEASES = sorted(FOLDER.glob("*.txt"), key=lambda path: Version(path.stem))


def promises() -> set[str]:
    """Return what this checkout promises."""
    return {
        *(line for definition in schema.load(config.Config(), "p") for line in _schema(definition)),
        *_commands("dcm2bq", cli.commands),
        *(f"configuration {option.path}" for option in config.options()),
        *(f"terraform {kind} {name}" for kind, name in _declared_in_terraform()),
        *(f"parameter {name} of convert" for name in signature(dicom.convert).parameters),
        *(f"error {name}" for name in dicom.__all__ if name.endswith("Error")),
    }


def _schema(definition: schema.Definition) -> Iterator[str]:
    yield f"{definition.kind.name.lower()} {definition.name}"
    for number, argument in enumerate(definition.resource.get("arguments", ())):
        kind = argument["dataType"]["typeKind"]
        yield f"argument {number} of {definition.name}: {argument['name']} {kind}"
    if "schema" in definition.resource:  # a function's columns are those of what it reads
        yield from _columns(definition.name, definition.resource["schema"]["fields"])


def _columns(place: str, fields: list[dict[str, Any]]) -> Iterator[str]:
    for field in fields:
        path = f"{place}.{field['name']}"
        repeated = " REPEATED" if field.get("mode") == "REPEATED" else ""
        yield f"column {path} {field['type']}{repeated}"
        yield from _columns(path, field.get("fields", []))


def _commands(name: str, command: click.Command) -> Iterator[str]:
    yield f"command {name}"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield from (f"option {name} {text}" for text in parameter.opts)
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from _commands(f"{name} {word}", below)


def _declared_in_terraform() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "tf").glob("*.tf"):
        yield from re.findall(r'^(variable|output) "(\w+)"', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_what_a_release_promises_is_still_there(path: Path) -> None:
    if Version(path.stem).major == Version(__version__).major:
        assert set(path.read_text().splitlines()) - promises() == set()


def test_a_release_has_the_list_of_its_promises() -> None:
    assert RELEASES
    if not Version(__version__).is_prerelease:
        assert FOLDER / f"{__version__}.txt" in RELEASES


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    lines = sorted(promises())
    (FOLDER / f"{__version__}.txt").write_text("".join(f"{line}\n" for line in lines))

"""Check that a tag may be released, and print its release notes.

    scripts/release.py v1.2.0 https://github.com/OWNER/dcm2bq > notes.md

The tag must equal the version of the package, CHANGELOG.md must have a dated entry for it and
nothing under [Unreleased], and the project's URLs must be those of the repository.
"""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from dcm2bq import __version__
from dcm2bq.version import VERSION
from scripts.package_readme import linked

ROOT = Path(__file__).parents[1]
_HEADING = re.compile(r"^## \[([^]]+)\](?: - (.+))?\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the changelog; `date` is None under [Unreleased], `notes` is Markdown."""

    version: str
    date: str | None
    notes: str


def entries(changelog: str) -> list[Entry]:
    """Return the entries of a changelog in the form of keepachangelog.com, newest first."""
    _, *parts = _HEADING.split(changelog)
    return [
        Entry(version, date, notes.strip())
        for version, date, notes in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def problems(tag: str, changelog: list[Entry], urls: dict[str, str], homepage: str) -> list[str]:
    """Return what has to be changed before the tag is released, a sentence each."""
    result = []
    if tag != f"v{__version__}":
        result.append(f"the tag {tag} is not v{__version__}, the version in dcm2bq/__init__.py")
    entry = next((entry for entry in changelog if f"v{entry.version}" == tag), None)
    if entry is None:
        result.append(f"CHANGELOG.md has no entry for {tag}: add one")
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", entry.date or ""):
        result.append(f"the entry {entry.version} of CHANGELOG.md has no date: add today's")
    if changelog[0].notes:
        result.append("CHANGELOG.md has lines under [Unreleased]: move them to the new entry")
    result += [
        f"{name} in pyproject.toml is {url}, not below {homepage}: correct [project.urls]"
        for name, url in urls.items()
        if url != homepage and not url.startswith(f"{homepage}/")
    ]
    return result


def notes(tag: str, changelog: list[Entry], homepage: str) -> str:
    """Return the notes of a release, which also identify its code.

    Their links lead to the files as tagged: a page of releases is not beside these files.
    """
    (entry,) = (entry for entry in changelog if f"v{entry.version}" == tag)
    text = linked(entry.notes, homepage, tag)
    return f"{text}\n\nRows of this release have `info.dcm2bq_version = '{VERSION}'`.\n"


def main(tag: str, homepage: str) -> None:
    """Print the notes, or exit with everything that is in the way."""
    changelog = entries((ROOT / "CHANGELOG.md").read_text())
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    if found := problems(tag, changelog, urls, homepage):
        sys.exit("\n".join(found))
    sys.stdout.write(notes(tag, changelog, homepage))


if __name__ == "__main__":
    main(*sys.argv[1:])

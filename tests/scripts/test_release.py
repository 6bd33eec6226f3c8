"""A tag is released only if package, changelog and URLs agree with it."""

import subprocess
import sys

import pytest
from packaging.version import Version

from dcm2bq import __version__
from dcm2bq.version import VERSION
from scripts import release
from scripts.release import Entry

HOME = "https://example.com/dcm2bq"
URLS = {"Homepage": HOME, "Issues": f"{HOME}/issues"}
TAG = f"v{__version__}"
CHANGELOG = [
    Entry("Unreleased", None, ""),
    Entry(__version__, "2026-01-31", "### Added\n\n- A thing."),
    Entry("0.9.0", "2026-01-01", "### Fixed\n\n- Another thing."),
]


def test_entries_are_read_with_version_date_and_notes() -> None:
    text = "# Changelog\n\nThe form.\n\n" + "".join(
        f"## [{entry.version}]{f' - {entry.date}' if entry.date else ''}\n\n{entry.notes}\n\n"
        for entry in CHANGELOG
    )
    assert release.entries(text) == CHANGELOG


def test_a_tag_that_fits_is_released_with_its_notes_alone() -> None:
    assert release.problems(TAG, CHANGELOG, URLS, HOME) == []
    code = f"Rows of this release have `info.dcm2bq_version = '{VERSION}'`."
    assert release.notes(TAG, CHANGELOG, HOME) == f"{CHANGELOG[1].notes}\n\n{code}\n"


def test_links_in_the_notes_lead_to_the_files_of_the_tag() -> None:
    text = "[a](docs/A.md#b) [c](https://example.com/c)"
    notes = release.notes(TAG, [Entry(__version__, "2026-01-31", text)], HOME)
    assert notes.startswith(f"[a]({HOME}/blob/{TAG}/docs/A.md#b) [c](https://example.com/c)\n")


@pytest.mark.parametrize(
    ("tag", "changelog", "urls", "problem"),
    [
        ("v0.9.0", CHANGELOG, URLS, "the tag v0.9.0 is not v"),
        (TAG, CHANGELOG[:1], URLS, "CHANGELOG.md has no entry for v"),
        (TAG, [CHANGELOG[0], Entry(__version__, "unreleased", "")], URLS, "has no date"),
        (TAG, [Entry("Unreleased", None, "- More."), CHANGELOG[1]], URLS, "under [Unreleased]"),
        (TAG, CHANGELOG, {"Homepage": f"{HOME}-fork"}, "Homepage in pyproject.toml is"),
    ],
)
def test_a_tag_changelog_or_url_that_does_not_fit_stops_the_release(
    tag: str, changelog: list[Entry], urls: dict[str, str], problem: str
) -> None:
    (found,) = release.problems(tag, changelog, urls, HOME)
    assert problem in found


def test_the_program_prints_every_problem_and_no_notes() -> None:
    command = [sys.executable, "-m", "scripts.release", "v0.0.0", HOME]
    done = subprocess.run(command, cwd=release.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) >= 2


def test_the_changelog_fits_the_package() -> None:
    """The package is the latest entry, or on its way to it or to a later one."""
    unreleased, latest, *older = release.entries((release.ROOT / "CHANGELOG.md").read_text())
    assert (unreleased.version, unreleased.date) == ("Unreleased", None)
    versions = [Version(entry.version) for entry in (latest, *older)]
    assert versions == sorted(versions, reverse=True)
    package = Version(__version__)
    if package.is_prerelease:
        assert Version(package.base_version) >= versions[0]
    else:
        assert package == versions[0]
    undated = [entry.version for entry in (latest, *older) if entry.date == "unreleased"]
    assert undated == ([package.base_version] if package.base_version in undated else [])


def test_the_changelog_has_the_headings_of_its_form() -> None:
    headings = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    text = (release.ROOT / "CHANGELOG.md").read_text()
    used = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert set(used) <= headings

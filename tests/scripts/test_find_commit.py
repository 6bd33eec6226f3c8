"""The commit of a deployed version is found by the version alone."""

import subprocess
from pathlib import Path

import pytest

from scripts import find_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commit(folder: Path, path: str, content: str) -> str:
    """Commit one file; return the digest of the deployed files after it."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", f"Write {path}")
    return find_commit.digest_of("HEAD", folder)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def test_each_change_of_deployed_code_has_another_digest(repository: Path) -> None:
    digests = [
        commit(repository, "main.py", "1"),
        commit(repository, "dcm2bq/rows.py", "1"),
        commit(repository, "dcm2bq/dicom/read/source.py", "1"),
        commit(repository, "dcm2bq/rows.py", "2"),
    ]
    assert len(set(digests)) == 4
    assert commit(repository, "dcm2bq/rows.py", "1") == digests[2]


def test_changes_of_other_files_leave_the_digest_alone(repository: Path) -> None:
    first = commit(repository, "main.py", "1")
    assert commit(repository, "dcm2bq/cli/dump.py", "1") == first
    assert commit(repository, "tests/main.py", "1") == first
    summaries = list(find_commit.commits(first, repository))
    assert [summary.split(maxsplit=2)[2] for summary in summaries] == [
        "Write tests/main.py",
        "Write dcm2bq/cli/dump.py",
        "Write main.py",
    ]


def test_an_unknown_digest_has_no_commit(repository: Path) -> None:
    commit(repository, "main.py", "1")
    assert list(find_commit.commits("0" * 12, repository)) == []

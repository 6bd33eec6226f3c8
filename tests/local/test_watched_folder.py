"""New, changed and deleted files of a folder."""

import os
from pathlib import Path
from typing import Any

import pytest

from dcm2bq.local.watched_folder import Changes, WatchedFolder


@pytest.fixture
def folder(tmp_path: Path) -> WatchedFolder:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.dcm").write_text("b")
    (tmp_path / "sub" / "a.dcm").write_text("a")
    return WatchedFolder(tmp_path)


def test_the_first_scan_reports_every_file(folder: WatchedFolder) -> None:
    assert folder.changes() == Changes(written=("b.dcm", "sub/a.dcm"))


def test_an_unchanged_folder_has_no_changes(folder: WatchedFolder) -> None:
    folder.changes()
    assert not folder.changes()
    assert not folder.changes()


def test_a_file_that_is_still_being_written_is_reported_once_it_is_complete(
    folder: WatchedFolder,
) -> None:
    folder.changes()
    new = folder.root / "new.dcm"
    for size in (1, 2, 3):
        new.write_text("x" * size)
        assert not folder.changes()
    assert folder.changes() == Changes(written=("new.dcm",))
    assert not folder.changes()


def test_a_file_that_was_reported_half_written_is_reported_again(folder: WatchedFolder) -> None:
    folder.changes()  # the first call reports files as they are
    (folder.root / "b.dcm").write_text("b, and the rest of it")
    assert not folder.changes()
    assert folder.changes() == Changes(written=("b.dcm",))


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_a_change(
    folder: WatchedFolder,
) -> None:
    folder.changes()
    old, new = folder.root / "b.dcm", folder.root / "temporary"
    new.write_text("c")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    new.replace(old)
    folder.changes()
    assert folder.changes() == Changes(written=("b.dcm",))


def test_a_deleted_file_is_reported_once(folder: WatchedFolder) -> None:
    folder.changes()
    (folder.root / "sub" / "a.dcm").unlink()
    assert folder.changes() == Changes(removed=("sub/a.dcm",))
    assert not folder.changes()


def test_a_file_deleted_before_it_was_reported_is_never_reported(folder: WatchedFolder) -> None:
    folder.changes()
    (folder.root / "new.dcm").write_text("x")
    folder.changes()
    (folder.root / "new.dcm").unlink()
    assert not folder.changes()


def test_fifos_are_reported_and_dangling_links_are_not(folder: WatchedFolder) -> None:
    os.mkfifo(folder.root / "pipe.dcm")
    (folder.root / "nowhere.dcm").symlink_to("missing")
    (folder.root / "again.dcm").symlink_to("b.dcm")
    assert folder.changes().written == ("again.dcm", "b.dcm", "pipe.dcm", "sub/a.dcm")


def test_an_unreadable_folder_is_passed_to_on_error(
    folder: WatchedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, scandir = str(folder.root / "sub"), os.scandir

    def refuse(path: str) -> Any:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    errors: list[OSError] = []
    monkeypatch.setattr(os, "scandir", refuse)
    assert WatchedFolder(folder.root, errors.append).changes().written == ("b.dcm",)
    assert [error.filename for error in errors] == [locked]

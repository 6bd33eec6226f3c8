"""What is new, changed or gone in a folder."""

import os
from pathlib import Path
from typing import Any

import pytest

from dcm2bq.local.watched_folder import Changes, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.dcm").write_text("b")
    (tmp_path / "sub" / "a.dcm").write_text("a")
    return Folder(tmp_path)


def test_the_first_look_finds_everything(folder: Folder) -> None:
    assert folder.changes() == Changes(written=("b.dcm", "sub/a.dcm"))


def test_nothing_new_is_no_change(folder: Folder) -> None:
    folder.changes()
    assert not folder.changes()
    assert not folder.changes()


def test_a_file_that_is_still_written_is_left_until_it_rests(folder: Folder) -> None:
    folder.changes()
    new = folder.root / "new.dcm"
    for size in (1, 2, 3):
        new.write_text("x" * size)
        assert not folder.changes()
    assert folder.changes() == Changes(written=("new.dcm",))
    assert not folder.changes()


def test_a_file_that_was_taken_half_is_taken_again(folder: Folder) -> None:
    folder.changes()  # the first look takes files as they are
    (folder.root / "b.dcm").write_text("b, and the rest of it")
    assert not folder.changes()
    assert folder.changes() == Changes(written=("b.dcm",))


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_a_change(folder: Folder) -> None:
    folder.changes()
    old, new = folder.root / "b.dcm", folder.root / "temporary"
    new.write_text("c")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    new.replace(old)
    folder.changes()
    assert folder.changes() == Changes(written=("b.dcm",))


def test_a_deleted_file_is_removed_once(folder: Folder) -> None:
    folder.changes()
    (folder.root / "sub" / "a.dcm").unlink()
    assert folder.changes() == Changes(removed=("sub/a.dcm",))
    assert not folder.changes()


def test_a_file_that_comes_and_goes_between_looks_is_nothing(folder: Folder) -> None:
    folder.changes()
    (folder.root / "new.dcm").write_text("x")
    folder.changes()
    (folder.root / "new.dcm").unlink()
    assert not folder.changes()


def test_what_is_no_file_is_passed_over(folder: Folder) -> None:
    os.mkfifo(folder.root / "pipe.dcm")
    (folder.root / "nowhere.dcm").symlink_to("missing")
    (folder.root / "again.dcm").symlink_to("b.dcm")
    assert folder.changes().written == ("again.dcm", "b.dcm", "sub/a.dcm")


def test_a_folder_that_cannot_be_read_is_told(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, scandir = str(folder.root / "sub"), os.scandir

    def refuse(path: str) -> Any:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    errors: list[OSError] = []
    monkeypatch.setattr(os, "scandir", refuse)
    assert Folder(folder.root, errors.append).changes().written == ("b.dcm",)
    assert [error.filename for error in errors] == [locked]

from pathlib import Path

import pytest

from lens_hpc import files
from lens_hpc.errors import UserError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyError), files.whole_file(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "new"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with pytest.raises(KeyError), files.whole_folder(path) as partial:
        (partial / "half").touch()
        assert not path.exists()
        raise KeyError
    assert list(path.parent.iterdir()) == []
    with files.whole_folder(path) as partial:
        (partial / "whole").touch()
    assert [file.name for file in path.iterdir()] == ["whole"]


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "folder.partial").mkdir()
    (tmp_path / "folder.partial" / "left").touch()
    with files.whole_folder(tmp_path / "folder") as partial:
        assert list(partial.iterdir()) == []


def test_an_existing_folder_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "precious").touch()
    with pytest.raises(UserError, match="already exists"), files.whole_folder(path):
        pytest.fail("must not be entered")
    assert (path / "precious").exists()
    with files.whole_folder(path, replace=True) as partial:
        (partial / "new").touch()
    assert [file.name for file in path.iterdir()] == ["new"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/x: cannot be made"):
        files.make_folder(tmp_path / "file" / "x")

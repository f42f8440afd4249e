"""Files that appear complete or not at all, whatever the disk says."""

import errno
import os
import re
import resource
import shutil
import stat
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lens_hpc import files
from lens_hpc.dataset.hdf5_stream import new_hdf5_file
from lens_hpc.errors import UserError
from lens_hpc.refusals import refusals_named
from lens_hpc.training.checkpoints import _save


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


def test_what_a_folder_holds_is_told_by_its_final_names(tmp_path: Path) -> None:
    assert files.names_in(tmp_path / "missing") == set()
    files.own_partial(tmp_path / "scores").mkdir()
    (tmp_path / "notes.txt").touch()
    assert files.names_in(tmp_path) == {"scores", "notes.txt"}


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


# ---- replacing ----


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_old_folder_or_the_new_one_is_there_at_any_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """The process is killed before each rename in turn, as far as Python sees them."""
    path = tmp_path / "evaluation"
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    really_rename = Path.rename
    for deadly in range(4):
        path.mkdir(exist_ok=True)
        (path / "old").touch()
        renames = 0

        def rename_until_killed(self: Path, target: Path, deadly: int = deadly) -> Path:
            nonlocal renames
            renames += 1
            if renames > deadly:
                raise KeyboardInterrupt
            return really_rename(self, target)

        monkeypatch.setattr(Path, "rename", rename_until_killed)
        with suppress(KeyboardInterrupt), files.whole_folder(path, replace=True) as partial:
            (partial / "new").touch()
        monkeypatch.setattr(Path, "rename", really_rename)

        files.recover(path)
        assert [file.name for file in path.iterdir()] in (["old"], ["new"])
        assert [left.name for left in tmp_path.iterdir()] == ["evaluation"]
        shutil.rmtree(path)


def test_folders_exchange_their_names_where_the_system_can(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / folder.name).touch()
    assert files._exchange(one, other)
    assert (one / "other").exists()
    assert (other / "one").exists()


def test_a_link_stays_and_what_it_points_to_is_made(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "scratch" / "real")
    with files.whole_folder(link) as partial:
        (partial / "x").touch()
    assert link.is_symlink()
    assert (tmp_path / "scratch" / "real" / "x").exists()


def test_a_mount_point_is_refused_before_the_work() -> None:
    with pytest.raises(UserError, match="is a mount point"), files.whole_folder(Path("/proc")):
        raise AssertionError


# ---- what the system refuses ----


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, r"\([\d,]+ MB are free there\); what was there before is kept; make room"),
        (errno.EDQUOT, "make room in your quota"),
        (errno.EROFS, "that you may read and write"),
        (errno.EACCES, "that you may read and write"),
        (errno.ESTALE, "wait until the file system answers"),
        (errno.EIO, "wait until the file system answers"),
    ],
)
def test_a_refusal_is_named_with_its_remedy(tmp_path: Path, number: int, remedy: str) -> None:
    path = tmp_path / "file"
    told = rf"file: cannot be written: .*{remedy}"
    with pytest.raises(UserError, match=told), files.whole_file(path):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_our_own_faults_are_not_taken_for_refusals(tmp_path: Path) -> None:
    for error in (KeyError("x"), FileNotFoundError(errno.ENOENT, "no such file"), OSError("odd")):
        with pytest.raises(type(error)), files.whole_file(tmp_path / "file"):
            raise error


def test_the_writers_of_other_libraries_tell_a_disk_without_room(tmp_path: Path) -> None:
    """A file that may not grow is a disk without room."""
    path = tmp_path / "file"

    def write_by_torch() -> None:
        _save({"a": torch.zeros(100_000)}, path)

    def write_by_hdf5() -> None:
        with new_hdf5_file(path) as file:
            for number in range(100):
                file[f"{number}"] = np.zeros(1000)

    writers = [
        write_by_torch,
        write_by_hdf5,
        lambda: pq.write_table(pa.table({"a": range(100_000)}), path),
        lambda: path.write_text("x" * 100_000),
    ]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in writers:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(UserError, match="File too large"), refusals_named(path):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_elsewhere_that_cannot_be_read_is_not_blamed_on_what_is_written(
    tmp_path: Path,
) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/survey/image.fits")
    with pytest.raises(PermissionError), files.whole_file(tmp_path / "out" / "file"):
        raise error


def test_a_fault_of_ours_while_a_refusal_is_handled_stays_ours(tmp_path: Path) -> None:
    with pytest.raises(KeyError), refusals_named(tmp_path / "file"):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            {}["ours"]


def test_a_folder_of_the_users_with_such_a_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "survey").mkdir()
    for name in ("survey.replaced", ".survey.replaced"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="already exists"), files.whole_folder(tmp_path / "survey"):
        pass
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        files.sync(tmp_path)
    with pytest.raises(UserError, match="file: cannot be written: Input/output error"):
        files.write_text(tmp_path / "file", "text")


def test_what_has_its_name_is_not_said_to_be_unwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sync = files.sync

    def sync(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        really_sync(path)

    monkeypatch.setattr(files, "sync", sync)
    told = f"{tmp_path}: cannot be written: .*; new is in it, whole, and may be lost"
    with pytest.raises(UserError, match=told), files.whole_folder(tmp_path / "new") as folder:
        (folder / "x").write_text("all of it")
    assert (tmp_path / "new" / "x").read_text() == "all of it"
    with pytest.raises(UserError, match="file is in it, whole"):
        files.write_text(tmp_path / "file", "all of it")
    assert (tmp_path / "file").read_text() == "all of it"


def test_a_file_system_without_sync_of_folders_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    files.write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"

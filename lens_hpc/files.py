"""Files and folders that appear complete or not at all: written aside, synced, renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lens_hpc.errors import UserError

PARTIAL = ".partial"


def expand(path: str | Path) -> Path:
    """Return a path whose `~` stands for a home folder. Raises UserError for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such home folder; write the path in full") from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. Raises UserError when the system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made: {error.strerror}; choose a folder that you may write to"
        ) from error


def partial(path: Path) -> Path:
    """Return the name under which a file or folder is written until it is complete."""
    return path.with_name(path.name + PARTIAL)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to; it replaces `path` at the end, or is removed on an error."""
    aside = partial(path)
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise

    # The new name is safe only when the folder is on the disk, too.
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, completely or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path` at the end, or is removed on an error.

    A folder that exists is replaced if `replace`; otherwise it is a UserError, raised before
    anything is written.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} already exists; name another folder, or delete it first")
    make_folder(path.parent)

    # A run that was killed may have left something under this name.
    aside = partial(path)
    shutil.rmtree(aside, ignore_errors=True)
    make_folder(aside)

    try:
        yield aside
        for written in [*aside.rglob("*"), aside]:
            sync(written)
        if path.exists():
            shutil.rmtree(path)
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk holds what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

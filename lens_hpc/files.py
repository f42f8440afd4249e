"""Files and folders that appear whole or not at all: written aside, synced, renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lens_hpc import UserError

PARTIAL = ".partial"


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents; UserError when the system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}; choose a folder that you may write to") from error


def partial(path: Path) -> Path:
    """Where `path` is written to until it is whole."""
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
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path` at the end, or is removed on an error.

    What a killed run left under that name is cleared first. A `path` that exists is replaced when `replace` says so;
    otherwise it is a UserError, raised before anything is written.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} already exists; name another folder, or delete it first")
    make_folder(path.parent)
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

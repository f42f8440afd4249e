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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to; it replaces `path` at the end, or is removed on an error."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path` at the end, or is removed on an error.

    What a killed run left under that name is cleared first. A `path` that exists is replaced when `replace` says so;
    otherwise it is a UserError, raised before anything is written.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} already exists; name another folder, or delete it first")
    make_folder(path.parent)
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
        for written in [*partial.rglob("*"), partial]:
            sync(written)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk holds what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

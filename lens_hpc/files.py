"""Files and folders that appear complete or not at all: written aside, synced, renamed."""

import ctypes
import errno
import glob
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lens_hpc.errors import UserError
from lens_hpc.refusals import KEPT, refusals_named

PARTIAL = ".partial"
REPLACED = ".replaced"

AT_FDCWD = -100
RENAME_EXCHANGE = 2

NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


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


# ---- names ----


def partial(path: Path) -> Path:
    """Return the name under which processes together write a folder until it is complete."""
    return path.with_name(path.name + PARTIAL)


def own_partial(path: Path) -> Path:
    """Return the name under which this process alone writes a file or folder."""
    return path.with_name(f"{path.name}{PARTIAL}-{platform.node()}-{os.getpid()}")


def remove_partials(folder: Path, name: str = "") -> None:
    """Remove what killed processes left in a folder, of one name or of all.

    To be called by the process that holds what they wrote (lens_hpc.holding).
    """
    pattern = f"{glob.escape(name)}{PARTIAL}-*" if name else f"*{PARTIAL}*"
    for left_over in folder.glob(pattern):
        if left_over.is_dir() and not left_over.is_symlink():
            shutil.rmtree(left_over, ignore_errors=True)
        else:
            left_over.unlink(missing_ok=True)


def names_in(folder: Path) -> set[str]:
    """Return what a folder holds, its parts by the names that they will have; nothing without it.

    Whoever does not hold the folder sees what another process does there meanwhile.
    """
    try:
        return {path.name.partition(PARTIAL)[0] for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def final_name(path: Path) -> Path:
    """Return where a new folder really goes: a symbolic link's target in place of the link.

    Raises UserError for a mount point, which no finished folder can replace.
    """
    if path.is_symlink() or path.name in {"", ".."}:
        path = path.resolve()
    if os.path.ismount(path):
        raise UserError(f"{path}: is a mount point, which cannot be renamed; name a folder in it")
    return path


# ---- writing ----


@contextmanager
def whole_file(path: Path, kept: str = KEPT) -> Iterator[Path]:
    """Yield a name to write to; it replaces `path` at the end, or is removed on an error.

    Raises UserError when the system refuses to write, which says what is `kept`.
    """
    aside = own_partial(path)
    with refusals_named(path, kept):
        try:
            yield aside
            sync(aside)
            aside.replace(path)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
    _sync_name(path)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text, completely or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: Path, replace: bool = False, kept: str = KEPT) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path` at the end, or is removed on an error.

    A folder that exists is replaced if `replace`; otherwise it is a UserError, raised before
    anything is written, as for whatever cannot be written. One process at a time may do this.
    """
    path = final_name(path)
    if replace:
        recover(path)
    elif path.exists():
        raise UserError(f"{path} already exists; name another folder, or delete it first")
    make_folder(path.parent)
    remove_partials(path.parent, path.name)

    aside = own_partial(path)
    with refusals_named(path, kept):
        try:
            aside.mkdir()
            yield aside
            for written in [*aside.rglob("*"), aside]:
                sync(written)
            _put(aside, path)
        finally:
            # By now it is the old folder, or has another name.
            shutil.rmtree(aside, ignore_errors=True)
    _sync_name(path)


def _put(new: Path, path: Path) -> None:
    """Give a folder its name. Where another one has it, there is one of the two at any instant."""
    if not path.exists():
        new.rename(path)
    elif not _exchange(new, path):
        # Whoever finds this name takes the old folder back (`recover`).
        old = _name_of_old(path)
        path.rename(old)
        new.rename(path)
        shutil.rmtree(old)


def recover(path: Path) -> None:
    """Put back the old folder, where a process was killed while it gave its name to a new one."""
    old = _name_of_old(path)
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        old.rename(path)


def recover_all(folder: Path) -> None:
    """Put back all old folders in a folder."""
    for old in folder.glob(f".*{REPLACED}"):
        recover(old.with_name(old.name[1:].removesuffix(REPLACED)))


def _name_of_old(path: Path) -> Path:
    return path.with_name(f".{path.name}{REPLACED}")


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders exchange their names in one step, where the file system can do it."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    names = [os.fsencode(one), os.fsencode(other)]
    failed = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    if failed and ctypes.get_errno() not in NOT_SUPPORTED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    return not failed


def _sync_name(path: Path) -> None:
    """Wait until the disk holds a new name, which is safe only when its folder is there, too."""
    told = f"{path.name} is in it, whole, and may be lost if the machine stops"
    with refusals_named(path.parent, told):
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the disk holds what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems, such as those of FUSE, have nothing to sync in a folder.
        if error.errno not in NOT_SUPPORTED or not path.is_dir():
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)

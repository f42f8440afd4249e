"""What the system refuses, such as to write on a full disk: no fault of ours, and told as such."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lens_hpc.errors import UserError

KEPT = "what was there before is kept"

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAKE_ROOM = "make room there, or choose another folder"
MAY_NOT = "choose a file or folder that you may read and write"
NAME_ANOTHER = "name another file or folder"
DOES_NOT_ANSWER = "wait until the file system answers as it should, or choose another one"
IN_USE = "end the other program that uses it, or wait for it"
TOO_MANY = "raise the limit of what a process may have open (ulimit -a)"
REMEDIES = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: "make room in your quota, or choose another folder",
    errno.EFBIG: MAKE_ROOM,
    errno.EACCES: MAY_NOT,
    errno.EPERM: MAY_NOT,
    errno.EROFS: MAY_NOT,
    errno.ENOTDIR: NAME_ANOTHER,
    errno.EISDIR: NAME_ANOTHER,
    errno.ENAMETOOLONG: NAME_ANOTHER,
    errno.ELOOP: NAME_ANOTHER,
    errno.EXDEV: NAME_ANOTHER,
    errno.EIO: DOES_NOT_ANSWER,
    errno.ESTALE: DOES_NOT_ANSWER,
    errno.ENOTCONN: DOES_NOT_ANSWER,
    errno.ESHUTDOWN: DOES_NOT_ANSWER,
    errno.EHOSTDOWN: DOES_NOT_ANSWER,
    errno.ENXIO: DOES_NOT_ANSWER,
    errno.ETIMEDOUT: DOES_NOT_ANSWER,
    errno.EINTR: DOES_NOT_ANSWER,
    errno.EBUSY: IN_USE,
    errno.ETXTBSY: IN_USE,
    errno.EAGAIN: TOO_MANY,
    errno.EMFILE: TOO_MANY,
    errno.ENFILE: TOO_MANY,
    errno.ENOMEM: "ask for more memory, or use fewer processes",
    errno.ENOLCK: "name a folder on another file system, as this one has no locks",
}
# Some libraries tell the number in a text alone: HDF5, those in Rust, and astropy.
ERRNO_IN_TEXT = re.compile(r"errno = (\d+)|os error (\d+)|\[Errno (\d+)\]")


def errno_of(error: BaseException) -> int | None:
    """Return the number that the system gave for an error, whichever library raised it."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    told = ERRNO_IN_TEXT.search(str(error))
    if told:
        return int(told[told.lastindex or 0])
    return errno_of(error.__cause__) if error.__cause__ else None


def remedy_for(number: int | None) -> str:
    """Return what to do about a refusal, a sentence without its end; nothing where it is none."""
    words = REMEDIES.get(number or 0)
    return f"{words}, and run the same line again" if words else ""


@contextmanager
def refusals_named(path: Path, kept: str = KEPT) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into a UserError with the remedy.

    `kept` says what is left. Errors that are not the system's, or are of files elsewhere, are
    raised as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        named = getattr(error, "filename", None)
        if isinstance(named, str | Path) and not _is_within(Path(named), path.parent):
            raise
        number = errno_of(error)
        words = remedy_for(number)
        if number is None or not words:
            raise
        reason = os.strerror(number)
        if number in FULL:
            reason += _free_space(path)
        raise UserError(f"{path}: cannot be written: {reason}; {kept}; {words}") from error


def _is_within(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents


def _free_space(path: Path) -> str:
    """Say how much room there is where a file is to be written."""
    existing = next((folder for folder in path.parents if folder.is_dir()), None)
    if existing is None:
        return ""
    with suppress(OSError):
        return f" ({shutil.disk_usage(existing).free / 1e6:,.0f} MB are free there)"
    return ""

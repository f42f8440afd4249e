"""A file for HDF5 to write to, from which no error of the disk is lost.

On a full disk h5py 3 reports the failed write of a dataset that is closed as "exception ignored",
and ends the process when the file is closed. So HDF5 is told that all went well, and the first
error is raised when it has ended.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py


@contextmanager
def new_hdf5_file(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Yield a new HDF5 file, written without HDF5's locks. Raises OSError when the disk fails.

    `options` are h5py's.
    """
    with _Stream(path) as stream:
        with h5py.File(stream, "w", **options) as file:
            yield file
        if stream.error:
            raise stream.error


class _Stream(io.RawIOBase):
    """A file that keeps the first error of writing, and writes no more after it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def _unless_failed(self, work: Callable[[], Any]) -> None:
        if self.error is None:
            try:
                work()
            except OSError as error:
                self.error = error

    def _write_all(self, piece: memoryview) -> None:
        while piece:
            piece = piece[self._file.write(piece) :]

    def write(self, piece: Any) -> int:
        """Write all of a piece, and say so."""
        self._unless_failed(lambda: self._write_all(memoryview(piece)))
        return len(piece)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        self._unless_failed(lambda: self._file.truncate(size))
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read what was written."""
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

"""Files mapped into memory: read when touched, without a file handle that stays open."""

import ctypes
import mmap
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lens_hpc.errors import UserError

MAP_FIXED = 0x10  # Linux and macOS; Python's mmap does not name it
MADV_WILLNEED = 3
MADV_DONTNEED = 4


class MappedFiles:
    """Files one behind the other in one stretch of memory, each from a page on.

    `bytes` is the stretch as a read-only uint8 array, and `starts` says where in it each file
    begins. Raises UserError when the system refuses to map a file.
    """

    def __init__(self, files: Sequence[Path], sizes: Sequence[int]) -> None:
        self.sizes = dict(zip(files, sizes, strict=True))
        page = mmap.ALLOCATIONGRANULARITY
        pages = [-(-size // page) for size in sizes]
        ends = np.cumsum(pages) * page
        self.starts = np.concatenate([[0], ends[:-1]])

        # The files are mapped over an empty stretch, which is given back as a whole at the end.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self._stretch = mmap.mmap(-1, int(ends[-1]), flags=flags, prot=mmap.PROT_READ)
        except OSError as error:
            raise UserError(
                f"{files[0].parent}: {ends[-1]:,} bytes cannot be mapped into memory: "
                f"{error.strerror}; allow more address space (ulimit -v)"
            ) from error
        self.bytes = np.frombuffer(self._stretch, np.uint8)

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        ]
        self._libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for file, size, start in zip(files, sizes, self.starts, strict=True):
            self._map(file, size, int(start))
        _all_mapped.add(self)

    def read_ahead(self, start: int, length: int) -> None:
        """Advise the system to read some bytes before they are touched. It may decline."""
        first_page = start // mmap.PAGESIZE * mmap.PAGESIZE
        address = self.bytes.ctypes.data + first_page
        self._libc.madvise(address, start + length - first_page, MADV_WILLNEED)

    def forget(self) -> None:
        """Give back the memory of what was read; it is read anew when it is touched."""
        self._libc.madvise(self.bytes.ctypes.data, len(self.bytes), MADV_DONTNEED)

    def _map(self, file: Path, size: int, start: int) -> None:
        address = self.bytes.ctypes.data + start
        flags = mmap.MAP_SHARED | MAP_FIXED
        with file.open("rb") as stream:
            mapped = self._libc.mmap(address, size, mmap.PROT_READ, flags, stream.fileno(), 0)
        if mapped != address:
            reason = os.strerror(ctypes.get_errno())
            raise UserError(f"{file}: cannot be mapped into memory: {reason}")


# ---- a file that shrinks while it is mapped ----

_all_mapped: weakref.WeakSet[MappedFiles] = weakref.WeakSet()

_SIGACTION_BYTES = 1024  # more than any system's struct sigaction has
_lock = threading.Lock()
_entries = 0
_handler_before = ctypes.create_string_buffer(_SIGACTION_BYTES)


@contextmanager
def cut_shards_named() -> Iterator[None]:
    """End the process with the name of the shard when a mapped one shrinks meanwhile.

    The system answers a read of what was cut off with SIGBUS, which would end the process without
    a word. Instead, stderr says which shard it was, and the exit status is 2. Entries may be
    nested; the handler that was there before is back when the last of them is left.
    """
    name_cut_shards()
    try:
        yield
    finally:
        _stop_naming()


def name_cut_shards() -> None:
    """Do as `cut_shards_named` for the rest of the process: for workers that are ours alone.

    Python's own handlers wait for the interrupted call, which never returns; so this one is called
    by the C library, in the thread that read. That thread is within a copy and holds no lock.
    """
    global _entries
    libc = ctypes.CDLL(None)
    with _lock:
        if _entries == 0:
            # All of the old action is kept, with its flags and mask: signal() returns less.
            libc.sigaction(signal.SIGBUS, None, _handler_before)
            libc.signal(signal.SIGBUS, _ON_SIGBUS)
        _entries += 1


def _stop_naming() -> None:
    global _entries
    with _lock:
        _entries -= 1
        if _entries == 0:
            ctypes.CDLL(None).sigaction(signal.SIGBUS, _handler_before, None)


def _end_with_names(_: int) -> None:
    cut = []
    for mapped in _all_mapped:
        for file, size in mapped.sizes.items():
            if not file.is_file() or file.stat().st_size < size:
                cut.append(str(file))

    names = ", ".join(cut) or "a shard"
    message = f"lens-hpc: shrank while it was read: {names}; copy or pack it again\n"
    os.write(2, message.encode())
    os._exit(2)


_ON_SIGBUS = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end_with_names)

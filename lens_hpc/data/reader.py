"""Rows of a split, read from its shards: nothing is read before it is asked for, and no file stays open.

All shards of a split are mapped one behind the other into one stretch of memory, so that rows from any number of shards
are fetched by one native call: `places` says where in that stretch a row begins. Compressed images lie in chunks that
only h5py can unpack; they are read through it, row by row.
"""

import ctypes
import mmap
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lens_hpc import UserError
from lens_hpc.data.shards import COLUMNS, Manifest, ShardRecord, read_manifest

OPEN_COMPRESSED_SHARDS = 64
MAP_FIXED = 0x10  # Linux and macOS; Python's mmap does not name it
MADV_WILLNEED = 3


class Split:
    """The rows of one split. Rows are numbered through all its shards.

    Opening checks size and header of every shard against the manifest and raises UserError with the shard's name.
    `staged` names the files of shards that were copied to a nearer disk.
    """

    def __init__(self, dataset: Path, name: str, staged: Mapping[str, Path] | None = None) -> None:
        self.manifest = read_manifest(dataset)
        if name not in self.manifest.splits:
            raise UserError(f"{dataset} has no split {name!r}; it has: {', '.join(self.manifest.splits)}")
        self.name, self.dataset = name, dataset
        self.record = self.manifest.splits[name]
        self.files = [(staged or {}).get(shard.file, dataset / shard.file) for shard in self.record.shards]
        self._layouts = [
            _check_header(file, shard, self.manifest)
            for file, shard in zip(self.files, self.record.shards, strict=True)
        ]
        kinds = [{(name, at.shape, at.dtype) for name, at in layout.items()} for layout in self._layouts]
        if odd := [str(file) for file, kind in zip(self.files, kinds, strict=True) if kind != kinds[0]]:
            raise UserError(f"{odd[0]}: its columns are not of the types of {self.files[0]}; pack the dataset again")
        self._first_rows = np.cumsum([0, *(shard.rows for shard in self.record.shards)])
        self.compressed = self._layouts[0]["images"].offset is None

    def __len__(self) -> int:
        return self.record.rows

    def __getstate__(self) -> dict[str, Any]:
        """The map stays behind when a split is sent to another process: it makes its own."""
        return {key: value for key, value in self.__dict__.items() if key not in {"_map", "_offsets"}}

    @cached_property
    def _map(self) -> "_Map":
        return _Map(self.files, [shard.bytes for shard in self.record.shards])

    def shape(self, column: str) -> tuple[int, ...]:
        """Shape of one row."""
        return self._layouts[0][column].shape

    def dtype(self, column: str) -> np.dtype:
        """Type as it is stored."""
        return self._layouts[0][column].dtype

    @cached_property
    def _offsets(self) -> dict[str, np.ndarray]:
        """Where the first row of each shard lies in the map."""
        return {
            name: self._map.starts + np.array([layout[name].offset or 0 for layout in self._layouts])
            for name in COLUMNS
        }

    def places(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Where in `every_place` the given rows lie, int64."""
        shards = np.searchsorted(self._first_rows, rows, side="right") - 1
        return self._offsets[column][shards] + (rows - self._first_rows[shards]) * self._row_bytes(column)

    def every_place(self, column: str) -> np.ndarray:
        """The mapped shards as (places, bytes of a row) uint8, read only: a row may begin at each byte."""
        width = self._row_bytes(column)
        return np.lib.stride_tricks.as_strided(
            self._map.bytes, (len(self._map.bytes) - width + 1, width), (1, 1), writeable=False
        )

    def take(self, column: str, rows: np.ndarray) -> np.ndarray:
        """The given rows (any order) of one column, as a new array."""
        shape = (len(rows), *self.shape(column))
        if 0 in shape:
            return np.empty(shape, self.dtype(column))
        if column == "images" and self.compressed:
            return self._unpack(rows)
        return self.every_place(column)[self.places(column, rows)].view(self.dtype(column)).reshape(shape)

    def ids(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Ids of the given rows or of all, (N,) strings."""
        return self.texts("ids", rows)

    def texts(self, column: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Ids, groups or sources of the given rows or of all, (N,) strings."""
        return np.char.decode(self.take(column, np.arange(len(self)) if rows is None else rows), "utf-8")

    def fetch_ahead(self, rows: np.ndarray) -> None:
        """Ask the system to read the images of these rows, neighbours together, before they are needed."""
        if self.compressed or not len(rows):
            return
        places, width = np.sort(self.places("images", rows)), self._row_bytes("images")
        breaks = np.flatnonzero(np.diff(places) != width) + 1
        for stretch in np.split(places, breaks):
            self._map.will_need(int(stretch[0]), len(stretch) * width)

    def shards_of(self, rows: np.ndarray) -> list[Path]:
        """The files that hold these rows."""
        return [self.files[n] for n in np.unique(np.searchsorted(self._first_rows, rows, side="right") - 1)]

    def _unpack(self, rows: np.ndarray) -> np.ndarray:
        shards = np.searchsorted(self._first_rows, rows, side="right") - 1
        return np.stack(
            [_open_images(self.files[n])[row - self._first_rows[n]] for n, row in zip(shards, rows, strict=True)]
        )

    def _row_bytes(self, column: str) -> int:
        return int(np.prod(self.shape(column), dtype=int)) * self.dtype(column).itemsize


@dataclass(frozen=True)
class _Layout:
    """Where a column lies in a file; a compressed one lies nowhere in particular."""

    offset: int | None
    shape: tuple[int, ...]
    """Of one row."""
    dtype: np.dtype


def _check_header(file: Path, record: ShardRecord, manifest: Manifest) -> dict[str, _Layout]:
    try:
        size = file.stat().st_size
        if size != record.bytes:
            raise UserError(f"{file}: has {size:,} bytes, its manifest says {record.bytes:,}; copy or pack it again")
        with h5py.File(file, "r", locking=False) as shard:
            told = shard.attrs["file"]
            columns = {name: shard[name] for name in COLUMNS}
            rows = {len(column) for column in columns.values()}
            layouts = {name: _Layout(c.id.get_offset(), c.shape[1:], c.dtype) for name, c in columns.items()}
    except (OSError, KeyError) as error:
        raise UserError(f"{file}: is missing or damaged ({error}); copy or pack it again") from error
    if told != record.file:
        raise UserError(f"{file}: is really {told}, in the wrong place; copy or pack it again")
    images = (record.rows, len(manifest.bands), manifest.height, manifest.width, manifest.dtype)
    found = (max(rows), *layouts["images"].shape, str(layouts["images"].dtype))
    if found != images or len(rows) > 1:
        raise UserError(f"{file}: holds images {found}, its manifest says {images}; pack it again")
    if layouts["features"].shape != (len(manifest.features),):
        raise UserError(
            f"{file}: holds {layouts['features'].shape[0]} features, its manifest names {manifest.features}"
        )
    return layouts


@lru_cache(OPEN_COMPRESSED_SHARDS)
def _open_images(file: Path) -> Any:
    return h5py.File(file, "r", locking=False)["images"]


class _Map:
    """Files one behind the other in memory, each from a page on, read when touched. No file handle stays open."""

    def __init__(self, files: list[Path], sizes: list[int]) -> None:
        page = mmap.ALLOCATIONGRANULARITY
        ends = np.cumsum([-(-size // page) * page for size in sizes])
        self.starts = np.concatenate([[0], ends[:-1]])
        self._region = mmap.mmap(-1, int(ends[-1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
        self.bytes = np.frombuffer(self._region, np.uint8)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self._libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for file, size, start in zip(files, sizes, self.starts, strict=True):
            self._map(file, size, int(start))
        _watch_for_cuts(files, sizes)

    def will_need(self, start: int, length: int) -> None:
        """Have the system read this stretch ahead; it is only advice, so nothing is asked about its success."""
        begin = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._libc.madvise(self.bytes.ctypes.data + begin, start + length - begin, MADV_WILLNEED)

    def _map(self, file: Path, size: int, start: int) -> None:
        where = self.bytes.ctypes.data + start
        with file.open("rb") as stream:
            flags = mmap.MAP_SHARED | MAP_FIXED
            if self._libc.mmap(where, size, mmap.PROT_READ, flags, stream.fileno(), 0) != where:
                raise UserError(f"{file}: cannot be mapped into memory: {os.strerror(ctypes.get_errno())}")


# ---- a shard that shrinks while it is mapped ----------------------------------------------------------------------

_mapped: dict[Path, int] = {}


def _watch_for_cuts(files: list[Path], sizes: list[int]) -> None:
    """The system answers a read of what was cut off with SIGBUS, which would end the process without a word.

    Python's own handlers wait for the interrupted call, which never returns; so this one is called by the C library,
    in the thread that read. That thread is within a copy and holds no lock.
    """
    _mapped.update(zip(files, sizes, strict=True))
    ctypes.CDLL(None).signal(signal.SIGBUS, _ON_SIGBUS)


def _say_what_was_cut(_: int) -> None:
    cut = [str(file) for file, size in _mapped.items() if not file.is_file() or file.stat().st_size < size]
    message = f"lens-hpc: shrank while it was read: {', '.join(cut) or 'a shard'}; copy or pack it again\n"
    os.write(2, message.encode())
    os._exit(2)


_ON_SIGBUS = ctypes.CFUNCTYPE(None, ctypes.c_int)(_say_what_was_cut)

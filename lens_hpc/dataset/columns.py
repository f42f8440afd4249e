"""Columns of a split, read from its shards: nothing is read before it is asked for.

All shards of a split are mapped one behind the other into one stretch of memory, so that rows from
any number of shards are fetched by one native call: `row_offsets` says where in that stretch a row
begins. Compressed images lie in chunks that only h5py can unpack; they are read through it, row by
row, and some of their files stay open.
"""

import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lens_hpc.dataset.headers import check_headers
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.mapping import MappedFiles
from lens_hpc.dataset.shards import (
    BLOCK_ROWS,
    DEFAULTS,
    HDF5_ERRORS,
    RowBlock,
    block_rows,
    crc32_of_each,
    file_crc32,
    open_column,
    rows_text,
)
from lens_hpc.errors import UserError
from lens_hpc.files import expand

OPEN_COMPRESSED_SHARDS = 64


class ColumnReader:
    """The columns of one split, whose rows are numbered through all its shards.

    Opening checks size and header of every shard against the manifest, and raises UserError with
    the name of a shard that differs. `staged` names the files of shards that were copied to a
    nearer disk, by the shard's name; `manifest` is the dataset's, where it was read already.
    """

    def __init__(
        self,
        dataset: Path | str,
        name: str,
        staged: Mapping[str, Path] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.dataset = expand(dataset)
        self.name = name
        self.manifest = manifest or read_manifest(self.dataset)
        if name not in self.manifest.splits:
            names = ", ".join(self.manifest.splits)
            raise UserError(f"{self.dataset} has no split {name!r}; it has: {names}")

        self.record = self.manifest.splits[name]
        shards = self.record.shards
        copies = staged or {}
        self.files = [copies.get(shard.file, self.dataset / shard.file) for shard in shards]

        self._layouts = check_headers(self.files, shards, self.manifest)
        self._first_rows = np.cumsum([0, *(shard.rows for shard in shards)])
        self.compressed = self._layouts[0]["images"].offset is None
        self._checked_blocks: set[tuple[int, int]] = set()
        """Shard and number of each block that `check_blocks` found to be whole."""
        self._whole_shards: dict[int, bool] = {}
        """Whether a compressed shard is whole, by its number, once it was asked."""

    def __len__(self) -> int:
        return self.record.rows

    def shape(self, column: str) -> tuple[int, ...]:
        """Return the shape of one row of a column."""
        if self._is_absent(column):
            return ()
        return self._layouts[0][column].shape

    def dtype(self, column: str) -> np.dtype:
        """Return the type of a column as it is stored."""
        if self._is_absent(column):
            return DEFAULTS[column].dtype
        return self._layouts[0][column].dtype

    def take(self, column: str, row_numbers: np.ndarray) -> np.ndarray:
        """Return the given rows (any order) of one column, as a new array.

        The targets of older shards are NaN, and their weights 1.
        """
        if self._is_absent(column):
            return np.full(len(row_numbers), DEFAULTS[column])

        shape = (len(row_numbers), *self.shape(column))
        if 0 in shape:
            return np.empty(shape, self.dtype(column))
        if column == "images" and self.compressed:
            return self._unpack_images(row_numbers)

        offsets = self.row_offsets(column, row_numbers)
        rows = self.row_views(column)[offsets]
        return rows.view(self.dtype(column)).reshape(shape)

    def ids(self, row_numbers: np.ndarray | None = None) -> np.ndarray:
        """Return the ids of the given rows or of all, (N,) strings."""
        return self.texts("ids", row_numbers)

    def texts(self, column: str, row_numbers: np.ndarray | None = None) -> np.ndarray:
        """Return ids, groups or sources of the given rows or of all, (N,) strings."""
        if row_numbers is None:
            row_numbers = np.arange(len(self))
        stored = self.take(column, row_numbers)
        try:
            return np.char.decode(stored, "utf-8")
        except UnicodeDecodeError as error:
            bad = next(n for n, text in enumerate(stored.tolist()) if not _is_utf8(text))
            [shard] = self._shard_numbers(row_numbers[bad : bad + 1])
            row = row_numbers[bad] - self._first_rows[shard]
            raise UserError(
                f"{self.files[shard]}: is damaged in row {row}: its {column} are no text; copy or "
                "pack it again"
            ) from error

    # ---- damage ----

    def check_blocks(self, row_numbers: np.ndarray) -> None:
        """Raise UserError where a block with one of these rows is not as it was packed.

        All of a block is read, once: one that is whole is not read again by this object. Of a
        compressed shard all of the file is, which takes less time than to unpack it.
        """
        shards = self._shard_numbers(row_numbers)
        blocks = (row_numbers - self._first_rows[shards]) // BLOCK_ROWS
        needed = set(zip(shards.tolist(), blocks.tolist(), strict=True))
        for shard, number in sorted(needed - self._checked_blocks):
            # Noted first, so that another thread does not check it, too.
            self._checked_blocks.add((shard, number))
            try:
                self._check_block(shard, number)
            except BaseException:
                self._checked_blocks.discard((shard, number))
                raise

    def _check_block(self, shard: int, number: int) -> None:
        if self.compressed and self._is_whole(shard):
            return
        record = self.record.shards[shard]
        rows_of_block = block_rows(record, number)
        rows = self._first_rows[shard] + np.array(rows_of_block)

        columns = {name: self.take(name, rows) for name in self._layouts[0] if name != "images"}
        block = RowBlock(images=np.empty(0), **columns)
        if block.crc32(self._image_crc32(rows)) != record.block_crc32[number]:
            raise UserError(
                f"{self.files[shard]}: is damaged in rows {rows_text(record, number)}; copy or "
                "pack it again"
            )

    def _is_whole(self, shard: int) -> bool:
        """Say whether every byte of a shard's file is as it was packed. It is read once."""
        if shard not in self._whole_shards:
            try:
                crc32 = file_crc32(self.files[shard])
            except OSError:
                crc32 = ""  # The check of each block says what cannot be read.
            self._whole_shards[shard] = crc32 == self.record.shards[shard].crc32
        return self._whole_shards[shard]

    def _image_crc32(self, rows: np.ndarray) -> np.ndarray:
        """Return the checksums of the images of rows that lie one behind the other."""
        if self.compressed:
            # One by one: unpacked, a block of large cutouts may have gigabytes.
            images = (self.take("images", row) for row in rows[:, np.newaxis])
            return np.concatenate([crc32_of_each(image) for image in images])

        # As mapped, without a copy.
        start = int(self.row_offsets("images", rows[:1])[0])
        width = self._row_bytes("images")
        mapped = self._mapped.bytes[start : start + len(rows) * width]
        return crc32_of_each(mapped.reshape(len(rows), width))

    # ---- where rows lie ----

    def row_offsets(self, column: str, row_numbers: np.ndarray) -> np.ndarray:
        """Return the position of each given row in `row_views`, (N,) int64."""
        shards = self._shard_numbers(row_numbers)
        rows_within = row_numbers - self._first_rows[shards]
        return self._column_offsets[column][shards] + rows_within * self._row_bytes(column)

    def row_views(self, column: str) -> np.ndarray:
        """Return the mapped shards as (offsets, bytes of a row) uint8, read only.

        There is a view from every byte on, so neighbours overlap: only those at `row_offsets` are
        rows.
        """
        mapped = self._mapped.bytes
        width = self._row_bytes(column)
        shape = (len(mapped) - width + 1, width)
        return np.lib.stride_tricks.as_strided(mapped, shape, (1, 1), writeable=False)

    def prefetch(self, row_numbers: np.ndarray) -> None:
        """Ask the system to read the images of these rows before they are needed."""
        if self.compressed or not len(row_numbers):
            return
        offsets = np.sort(self.row_offsets("images", row_numbers))
        width = self._row_bytes("images")

        # Neighbours are asked for together.
        breaks = np.flatnonzero(np.diff(offsets) != width) + 1
        for stretch in np.split(offsets, breaks):
            self._mapped.read_ahead(int(stretch[0]), len(stretch) * width)

    def forget(self) -> None:
        """Give back the memory of the rows that were read."""
        if not self.compressed:
            self._mapped.forget()

    def files_of(self, row_numbers: np.ndarray) -> list[Path]:
        """Return the files that hold these rows."""
        shards = np.unique(self._shard_numbers(row_numbers))
        return [self.files[shard] for shard in shards]

    # ---- maps and open files ----

    def __getstate__(self) -> dict[str, Any]:
        """Leave maps and open files behind: another process makes its own."""
        left_behind = {"_mapped", "_column_offsets", "_open_images"}
        return {key: value for key, value in self.__dict__.items() if key not in left_behind}

    @cached_property
    def _mapped(self) -> MappedFiles:
        return MappedFiles(self.files, [shard.bytes for shard in self.record.shards])

    @cached_property
    def _column_offsets(self) -> dict[str, np.ndarray]:
        """For each column, where in the map its first row of each shard lies."""
        offsets = {}
        for column in self._layouts[0]:
            within_files = [layout[column].offset or 0 for layout in self._layouts]
            offsets[column] = self._mapped.starts + np.array(within_files)
        return offsets

    @cached_property
    def _open_images(self) -> Any:
        """A function that opens the images of a compressed shard, and keeps some of them open."""
        return lru_cache(OPEN_COMPRESSED_SHARDS)(_open_images)

    def _unpack_images(self, row_numbers: np.ndarray) -> np.ndarray:
        # A forked process must not use the files that its parent opened.
        process = os.getpid()

        images = np.empty((len(row_numbers), *self.shape("images")), self.dtype("images"))
        shards = self._shard_numbers(row_numbers)
        for image, shard, row in zip(images, shards, row_numbers, strict=True):
            file, row_in_file = self.files[shard], row - self._first_rows[shard]
            try:
                image[...] = self._open_images(file, process)[row_in_file]
            except HDF5_ERRORS as error:
                raise UserError(
                    f"{file}: is damaged in row {row_in_file} ({error}); copy or pack it again"
                ) from error
        return images

    def _is_absent(self, column: str) -> bool:
        """Say whether the shards are older than this column."""
        return column in DEFAULTS and column not in self._layouts[0]

    def _shard_numbers(self, row_numbers: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first_rows, row_numbers, side="right") - 1

    def _row_bytes(self, column: str) -> int:
        values = int(np.prod(self.shape(column), dtype=int))
        return values * self.dtype(column).itemsize


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _open_images(file: Path, process: int) -> h5py.Dataset:
    return open_column(h5py.File(file, "r", locking=False), "images")

"""Headers of shards: is a file what the manifest says, and where in it does each column lie?"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from lens_hpc.dataset.manifest import Manifest, ShardRecord
from lens_hpc.dataset.shards import HDF5_ERRORS, columns_of_schema, open_column
from lens_hpc.errors import UserError

LONGEST_SHOWN = 80
TYPES = {
    "features": "float32",
    "labels": "int8",
    "targets": "float32",
    "weights": "float32",
    "pixel_hashes": "uint64",
}
"""Of columns that hold numbers; the manifest tells that of the images."""


class ColumnLayout(NamedTuple):
    """Where and how a file holds a column."""

    offset: int | None
    """Of the first row, in bytes from the start of the file; None for a compressed column."""
    shape: tuple[int, ...]
    """Of one row."""
    dtype: np.dtype


class ShardHeader(NamedTuple):
    """What a file says of itself."""

    name: str
    """Of the shard, relative to its dataset, when it was packed."""
    rows: set[int]
    """Lengths of the columns: one number, unless the file is odd."""
    columns: dict[str, ColumnLayout]


def check_headers(
    files: Sequence[Path], records: Sequence[ShardRecord], manifest: Manifest
) -> list[dict[str, ColumnLayout]]:
    """Return where each shard holds its columns.

    Raises UserError with the name of a shard that is not what its record and the manifest say, or
    whose columns are not of the types of the first shard's.
    """
    layouts = []
    for file, record in zip(files, records, strict=True):
        header = _read_header(file, record, columns_of_schema(manifest.schema_version))
        _check_header(file, header, record, manifest)
        layouts.append(header.columns)

    for file, columns in zip(files, layouts, strict=True):
        if _types(columns) != _types(layouts[0]):
            raise UserError(
                f"{file}: its columns are not of the types of {files[0]}; pack the dataset again"
            )
    return layouts


def _read_header(file: Path, record: ShardRecord, names: Sequence[str]) -> ShardHeader:
    try:
        size = file.stat().st_size
        if size != record.bytes:
            raise UserError(
                f"{file}: has {size:,} bytes, its manifest says {record.bytes:,}; "
                "copy or pack it again"
            )

        with h5py.File(file, "r", locking=False) as shard:
            columns = {name: open_column(shard, name) for name in names}
            rows = {len(column) for column in columns.values()}
            layouts = {name: _column_layout(column) for name, column in columns.items()}
            return ShardHeader(str(shard.attrs["file"]), rows, layouts)
    except HDF5_ERRORS as error:
        raise UserError(
            f"{file}: is missing or damaged ({error}); copy or pack it again"
        ) from error


def _column_layout(column: h5py.Dataset) -> ColumnLayout:
    return ColumnLayout(column.id.get_offset(), column.shape[1:], column.dtype)


def _check_header(file: Path, header: ShardHeader, record: ShardRecord, manifest: Manifest) -> None:
    if header.name != record.file:
        raise UserError(
            f"{file}: is really {header.name[:LONGEST_SHOWN]}, in the wrong place; "
            "copy or pack it again"
        )

    images = header.columns["images"]
    found = (max(header.rows), *images.shape, str(images.dtype))
    bands = len(manifest.bands)
    expected = (record.rows, bands, manifest.height, manifest.width, manifest.dtype)
    if found != expected or len(header.rows) > 1:
        raise UserError(
            f"{file}: holds images {found}, its manifest says {expected}; pack it again"
        )

    for name, column in header.columns.items():
        if name == "images":
            continue
        shape = (len(manifest.features),) if name == "features" else ()
        kind = TYPES.get(name, "text")
        is_of_kind = column.dtype == kind if name in TYPES else column.dtype.kind == "S"
        if column.shape != shape or not is_of_kind:
            raise UserError(
                f"{file}: a row of its {name} is {column.dtype}{list(column.shape)}, and should be "
                f"{kind}{list(shape)}; copy or pack it again"
            )


def _types(columns: dict[str, ColumnLayout]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (column.shape, column.dtype) for name, column in columns.items()}

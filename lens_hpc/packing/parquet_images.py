"""Images in a column of a Parquet file: pictures as bytes, or pixels as nested lists."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc.packing.array_files import choose_array, decode_npy
from lens_hpc.packing.fits_images import check_unpacked
from lens_hpc.packing.pictures import decode_picture

MOST_CACHED_BYTES = 256 << 20
"""Row groups are kept up to this size, since rows are asked for in a random order."""

MOST_GROUP_BYTES = 1 << 30
"""Of a row group, which is read as a whole; larger ones must not shrink too far."""

ROWS_AT_ONCE = 16
NPY_MAGIC = b"\x93NUMPY"


class ParquetImages:
    """The images of a column, decoded when they are asked for: (planes, height, width) each.

    `key` names the column; a struct with the field `bytes`, as Hugging Face has it, is one of
    bytes. The bytes are those of a PNG, JPEG, TIFF or .npy file. A list, a tensor or an .npy file
    comes with the axes that it has. Where these have the planes last, `may_be_pictures` is to be
    false: a picture among them is refused. Raises ValueError where there is no such column.
    """

    def __init__(self, path: Path, key: str | None, *, may_be_pictures: bool = True) -> None:
        self._may_be_pictures = may_be_pictures
        self._file = pq.ParquetFile(path, memory_map=True)
        images = [field.name for field in self._file.schema_arrow if _may_hold_images(field.type)]
        self._column = choose_array(images, key)

        self._packed_bytes = self._check_groups()

        groups = range(self._file.num_row_groups)
        lengths = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._ends = np.cumsum(lengths)
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._cached_bytes = 0

    def _check_groups(self) -> list[int]:
        """Return the size of the column in each row group, on disk.

        Raises ValueError for one that says that it would fill the memory.
        """
        metadata = self._file.metadata
        paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
        numbers = [
            number
            for number, path in enumerate(paths)
            if path == self._column or path.startswith(self._column + ".")
        ]
        sizes = []
        for group in range(metadata.num_row_groups):
            parts = [metadata.row_group(group).column(number) for number in numbers]
            for part in parts:
                unpacked = max(part.total_uncompressed_size, part.num_values)
                check_unpacked(unpacked, part.total_compressed_size, MOST_GROUP_BYTES)
            sizes.append(sum(part.total_compressed_size for part in parts))
        return sizes

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    def __getitem__(self, row: int) -> np.ndarray:
        """Return an image; ValueError where the cell is empty or damaged."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[group - 1]) if group else 0
        return _decode_cell(self._row_group(group)[row - start], self._may_be_pictures)

    def _row_group(self, group: int) -> pa.ChunkedArray:
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]

        self._cache[group] = column = self._read_row_group(group)
        self._cached_bytes += column.nbytes

        # The one that is asked for stays, whatever its size.
        while len(self._cache) > 1 and self._cached_bytes > MOST_CACHED_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.nbytes
        return column

    def _read_row_group(self, group: int) -> pa.ChunkedArray:
        pieces = []
        size = 0
        for batch in self._file.iter_batches(ROWS_AT_ONCE, [group], [self._column]):
            # A picture that many rows have is there once on disk.
            size += batch.nbytes
            check_unpacked(size, self._packed_bytes[group], MOST_GROUP_BYTES)
            pieces.append(batch.column(0))
        return pa.chunked_array(pieces, self._file.schema_arrow.field(self._column).type)


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return _is_bytes(kind) or _is_list(kind) or _is_tensor(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_tensor(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType)


def _decode_cell(cell: Any, may_be_picture: bool) -> np.ndarray:
    if pa.types.is_struct(cell.type) and cell.is_valid:
        cell = cell["bytes"]
    if not cell.is_valid:
        raise ValueError("the cell holds no image")
    if _is_list(cell.type):
        return _array_of_lists(cell.values)
    if _is_tensor(cell.type):
        return _array_of_lists(cell.value.values).reshape(_shape_of_tensor(cell.type))

    content = cell.as_py()
    if content.startswith(NPY_MAGIC):
        image = decode_npy(content)
    elif may_be_picture:
        image = decode_picture(content)
    else:
        raise ValueError("the channels of a picture are its planes already; leave stack_axes out")
    return image[None] if image.ndim == 2 else image


def _shape_of_tensor(kind: pa.FixedShapeTensorType) -> list[int]:
    # pyarrow itself cannot read back what it writes of three axes in another order.
    if kind.permutation is not None and kind.permutation != sorted(kind.permutation):
        raise ValueError(
            f"the tensors have their axes in the order {kind.permutation}; store them in their own"
        )
    return kind.shape


def _array_of_lists(values: pa.Array) -> np.ndarray:
    """Return nested lists of one length on each level as an array; a missing number is NaN."""
    shape = [len(values)]
    while _is_list(values.type):
        lengths = values.value_lengths().unique()
        if len(lengths) != 1 or not lengths[0].is_valid:
            raise ValueError("the lists in the cell differ in length")
        shape.append(lengths[0].as_py())
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)

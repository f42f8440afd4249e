"""Shards: the HDF5 files of a dataset.

    DATASET/manifest.json
    DATASET/{train,val,test,...}/shard-00000.h5
        images    (N, bands, height, width)  as stored, physical values, never normalised
        features  (N, F) float32, NaN = missing
        labels    (N,) int8, 1 lens, 0 not, -1 unlabelled
        ids       (N,) UTF-8
        groups    (N,) UTF-8, empty where the catalogue has none
        sources   (N,) UTF-8, type and size of the image that a cutout was made from,
                  as in "fits float32 101x101"
        targets   (N,) float32, soft labels from 0 to 1; NaN: the label
        weights   (N,) float32, of a row in the loss; 1 where the catalogue has none
        pixel_hashes  (N,) uint64, of each image: equal ones tell equal cutouts

All are contiguous, so a reader maps them: h5py tells where an array begins, NumPy makes the view;
only compressed images are read by h5py, a row a chunk. Rows lie in a seeded shuffle of their split.
The manifest holds a CRC-32 of each file and of each block of BLOCK_ROWS rows (`RowBlock.crc32`).
Shards of schema 2 end with the sources.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lens_hpc.dataset.hdf5_stream import new_hdf5_file
from lens_hpc.dataset.manifest import ShardRecord

BLOCK_ROWS = 256
ALIGNMENT = 4096
SCHEMA_2_COLUMNS = ("images", "features", "labels", "ids", "groups", "sources")
COLUMNS = (*SCHEMA_2_COLUMNS, "targets", "weights", "pixel_hashes")
DEFAULTS = {"targets": np.float32(np.nan), "weights": np.float32(1)}
"""What the rows of shards have that lack a column."""

HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError)
"""What h5py raises for a file that is damaged, by where the damage is."""

MOST_ROW_BYTES = 1 << 30
BUFFER_BYTES = 1 << 20  # small enough to stay in the processor's cache


# ---- writing ----


@dataclass(frozen=True)
class RowBlock:
    """Some rows of all columns, as they are stored."""

    images: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray
    sources: np.ndarray
    targets: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    weights: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    pixel_hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def crc32(self, image_crc32: np.ndarray | None = None) -> str:
        """Return the checksum of the block, 8 hexadecimal digits.

        It is the CRC-32 of the images' CRC-32 (little-endian), then of the other columns. Those of
        the images are computed unless they are given. A block of schema 2 has empty columns, which
        leave the checksum as it is.
        """
        if image_crc32 is None:
            image_crc32 = crc32_of_each(self.images)

        crc = zlib.crc32(image_crc32.astype("<u4").tobytes())
        for name in COLUMNS[1:]:
            crc = zlib.crc32(_bytes(getattr(self, name)), crc)
        return f"{crc:08x}"


def columns_of_schema(version: int) -> tuple[str, ...]:
    """Return the columns that shards of a schema version have."""
    return COLUMNS if version >= 3 else SCHEMA_2_COLUMNS


def crc32_of_each(images: np.ndarray) -> np.ndarray:
    """Return a CRC-32 for each image, (B,) uint32. Equal images have equal ones."""
    return np.array([zlib.crc32(_bytes(image)) for image in images], dtype=np.uint32)


def hash_pixels(images: np.ndarray, image_crc32: np.ndarray | None = None) -> np.ndarray:
    """Return 64 bits for each image, (B,) uint64: the CRC-32, and 32 bits of the sum of all words.

    The two are independent, and together nearly as fast as the first. The CRC-32 are computed
    unless they are given.
    """
    if image_crc32 is None:
        image_crc32 = crc32_of_each(images)
    if not len(images):
        return np.empty(0, dtype=np.uint64)

    image_bytes = np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint8)
    word = next(size for size in (8, 4, 2, 1) if image_bytes.shape[1] % size == 0)
    words = image_bytes.view(f"<u{word}")
    sums = words.sum(axis=1, dtype=np.uint64)

    # Multiplied by the golden ratio of 2^64, so that the high half depends on every bit.
    mixed = (sums * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return (image_crc32.astype(np.uint64) << np.uint64(32)) | mixed


def encode_texts(texts: np.ndarray, size: int | None = None) -> np.ndarray:
    """Return strings as the UTF-8 of fixed length that HDF5 stores.

    The length is `size` bytes; without it, as many as the longest string needs.
    """
    encoded = _encode(texts)
    length = size or encoded.dtype.itemsize
    return encoded.astype(h5py.string_dtype("utf-8", length))


def _encode(texts: np.ndarray) -> np.ndarray:
    """Return the UTF-8 of strings; of ASCII alone by its numbers, many times faster."""
    characters = np.ascontiguousarray(texts).view(np.uint32)
    if not characters.size or characters.max() >= 128 or not texts.dtype.isnative:
        return np.char.encode(texts, "utf-8")

    # The type may be longer than the longest text.
    codes = characters.astype(np.uint8).reshape(len(texts), -1)
    used = np.flatnonzero(codes.any(axis=0))
    length = used[-1] + 1 if len(used) else 1
    return np.ascontiguousarray(codes[:, :length]).view(f"S{length}").reshape(-1)


def write_shard(
    file: Path,
    rows: int,
    blocks: Iterator[RowBlock],
    attributes: dict[str, Any],
    compression: str = "none",
) -> tuple[tuple[str, ...], list[int]]:
    """Write blocks of BLOCK_ROWS rows, `rows` in all, to a new HDF5 file.

    Return the checksum of each block, and that of each image.
    """
    block_checksums = []
    image_checksums: list[int] = []

    aligned = {"alignment_threshold": ALIGNMENT, "alignment_interval": ALIGNMENT}
    with new_hdf5_file(file, **aligned) as shard:
        shard.attrs.update(attributes)
        for block in blocks:
            start = len(image_checksums)
            stop = start + len(block.labels)
            for name in COLUMNS:
                part = getattr(block, name)
                # The first block tells the types. Each column is written as soon as it is created:
                # the order decides where in the file the columns lie, and files stay the same.
                if start == 0:
                    _create_column(shard, name, (rows, *part.shape[1:]), part.dtype, compression)
                shard[name][start:stop] = part

            of_images = crc32_of_each(block.images)
            image_checksums += of_images.tolist()
            block_checksums.append(block.crc32(of_images))

    written = len(image_checksums)
    assert written == rows, f"{file}: {written} rows were written, {rows} were announced"
    return tuple(block_checksums), image_checksums


def make_shard_record(
    dataset: Path, file: Path, rows: int, block_crc32: tuple[str, ...]
) -> ShardRecord:
    """Make the manifest's record of a complete shard."""
    return ShardRecord(
        file=file.relative_to(dataset).as_posix(),
        rows=rows,
        bytes=file.stat().st_size,
        crc32=file_crc32(file),
        block_crc32=block_crc32,
    )


def file_crc32(file: Path) -> str:
    """Return the checksum of a file's bytes, 8 hexadecimal digits."""
    crc = 0
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return f"{crc:08x}"


def _create_column(
    shard: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, compression: str
) -> None:
    options: dict[str, Any] = {}
    if name == "images" and compression != "none":
        options = {"compression": compression, "chunks": (1, *shape[1:])}
    shard.create_dataset(name, shape, dtype, **options)


def _bytes(array: np.ndarray) -> memoryview:
    if not array.size:
        return memoryview(b"")
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


# ---- checking ----


def find_damage(dataset: Path, record: ShardRecord) -> str:
    """Read every byte of a shard, and return what is not as it was packed.

    That is its name and the damaged rows; an empty string when all is as it was packed. Columns
    that lead out of the file are named, too, though every byte of it may be right.
    """
    file = dataset / record.file
    if not file.is_file():
        return f"{file}: is missing"
    size = file.stat().st_size
    if size != record.bytes:
        return f"{file}: has {size:,} bytes, not {record.bytes:,}"
    is_whole = file_crc32(file) == record.crc32

    try:
        with h5py.File(file, "r", locking=False) as shard:
            # Whether a name is in a shard is asked of its list, without following a link.
            columns = {name: open_column(shard, name) for name in COLUMNS if name in [*shard]}
            if is_whole:
                return ""
            # The file differs: find out where.
            numbers = range(len(record.block_crc32))
            damaged = [number for number in numbers if _block_differs(columns, record, number)]
    except HDF5_ERRORS as error:
        return f"{file}: its header is damaged ({error}), its rows cannot be told"

    if not damaged:
        return f"{file}: is damaged outside its rows, in the header or the padding"
    ranges = ", ".join(rows_text(record, number) for number in damaged)
    return f"{file}: is damaged in rows {ranges}"


def block_rows(record: ShardRecord, number: int) -> range:
    """Return the rows, within their shard, of a block."""
    first = number * BLOCK_ROWS
    return range(first, min(first + BLOCK_ROWS, record.rows))


def rows_text(record: ShardRecord, number: int) -> str:
    """Return the first and the last row, within their shard, of a block."""
    rows = block_rows(record, number)
    return f"{rows[0]}-{rows[-1]}"


def _block_differs(columns: dict[str, h5py.Dataset], record: ShardRecord, number: int) -> bool:
    rows = block_rows(record, number)
    try:
        # Row by row: unpacked, a damaged row may have any size.
        of_images = [crc32_of_each(columns["images"][row : row + 1]) for row in rows]
        parts = {
            name: column[rows.start : rows.stop]
            for name, column in columns.items()
            if name != "images"
        }
    except OSError:  # a compressed row that cannot be unpacked
        return True
    block = RowBlock(columns["images"], **parts)
    return block.crc32(np.concatenate(of_images)) != record.block_crc32[number]


# ---- reading ----


def open_column(shard: h5py.File, name: str) -> h5py.Dataset:
    """Return a column of a shard.

    Raises ValueError for what packing never writes: values that are not in this file, or none at
    all, and a row that fits into no memory.
    """
    # Nothing is opened before it is known to be in this file.
    if shard.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link")
    column = shard[name]
    if not isinstance(column, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    if column.is_virtual or column.external:
        raise ValueError(f"the values of {name} lie in other files")
    if not column.shape:
        raise ValueError(f"{name} has no rows")

    # NumPy has other types for some: what is mapped must be the same in the file.
    dtype = column.dtype
    if dtype.kind not in "fiuS" or h5py.h5t.py_create(dtype) != column.id.get_type():
        raise ValueError(f"{name} has the type {dtype}")
    _check_storage(shard, column, name)
    return column


def _check_storage(shard: h5py.File, column: h5py.Dataset, name: str) -> None:
    """Raise ValueError unless a column lies in the file in one piece, or images in packed rows."""
    kind = column.id.get_create_plist().get_layout()
    if kind == h5py.h5d.CONTIGUOUS:
        offset = column.id.get_offset()
        is_whole = offset is not None and offset + column.nbytes <= shard.id.get_filesize()
        if column.nbytes and not is_whole:
            raise ValueError(f"{name} has {column.nbytes:,} bytes, which are not all in the file")
        return

    row = (1, *column.shape[1:])
    if name != "images" or kind != h5py.h5d.CHUNKED or column.chunks != row:
        raise ValueError(f"{name} is not stored as packing does")
    row_bytes = column.nbytes // column.shape[0] if column.shape[0] else 0
    if row_bytes > MOST_ROW_BYTES:
        raise ValueError(f"an image has {row_bytes:,} bytes")


def read_row(file: Path, row: int) -> tuple[np.ndarray, str]:
    """Return image and id of one row of a shard."""
    with h5py.File(file, "r", locking=False) as shard:
        return open_column(shard, "images")[row], open_column(shard, "ids").asstr()[row]

"""A dataset on disk: HDF5 shards and the manifest that describes them.

    DATASET/manifest.json
    DATASET/{train,val,test,...}/shard-00000.h5
        images    (N, bands, height, width)  as stored, physical values, never normalised
        features  (N, F) float32, NaN = missing
        labels    (N,) int8, 1 lens, 0 not, -1 unlabelled
        ids       (N,) UTF-8
        groups    (N,) UTF-8, empty where the catalogue has none
        sources   (N,) UTF-8, type and size of the image that a cutout was made from, as in "fits float32 101x101"

All are contiguous, so a reader maps them: h5py tells where an array begins, NumPy makes the view; only compressed
images are read by h5py, a row a chunk. Rows lie in a seeded shuffle of their split. The manifest holds a CRC-32 of each
file and of each block of BLOCK_ROWS rows (`Rows.crc32`).
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lens_hpc import UserError

SCHEMA_VERSION = 2
BLOCK_ROWS = 256
ALIGNMENT = 4096
COLUMNS = ("images", "features", "labels", "ids", "groups", "sources")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardRecord(_Record):
    """One shard file, relative to the dataset."""

    file: str
    rows: int
    bytes: int
    crc32: str
    block_crc32: tuple[str, ...]


class SplitRecord(_Record):
    """One split: its class counts and shards."""

    rows: int
    lenses: int
    non_lenses: int
    unlabelled: int
    shards: tuple[ShardRecord, ...]


class Statistics(_Record):
    """Statistics of the training split alone; missing features are left out."""

    feature_min: tuple[float, ...]
    feature_max: tuple[float, ...]
    feature_median: tuple[float, ...]
    image_max: float


class Manifest(_Record):
    """manifest.json."""

    schema_version: int
    name: str
    bands: tuple[str, ...]
    height: int
    width: int
    dtype: str
    pixel_scale_arcsec: float
    resampled: tuple[str, ...]
    """Bands that were resampled, flux conserved, to the grid of the finest."""
    units: str
    features: tuple[str, ...]
    grouped: bool
    """Whether rows belong to groups."""
    seed: int
    block_rows: int
    statistics: Statistics | None
    splits: dict[str, SplitRecord]
    rejected: int
    """Rows of the source that were left out: rejected.csv says why."""
    duplicates_across_splits: int
    """Cutouts that are identical, pixel for pixel, to one in another split."""
    recipe: dict[str, Any]
    created_by: str


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`; UserError when there is none, or one of another schema."""
    file = folder / "manifest.json"
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        version = tree.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(f"{file}: schema version {version}, but this lens_hpc reads {SCHEMA_VERSION}; pack it anew")
        return Manifest.model_validate(tree)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is not a packed dataset: it has no manifest.json; make one with lens-hpc pack"
        ) from error
    except (OSError, json.JSONDecodeError, AttributeError, ValidationError) as error:
        raise UserError(f"{file}: is damaged ({error}); pack the dataset anew") from error


# ---- writing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Some rows of all columns."""

    images: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray
    sources: np.ndarray

    def crc32(self, image_crc32: np.ndarray | None = None) -> str:
        """Checksum of a block: CRC-32 of its images' CRC-32 (little-endian), then of the other columns."""
        images = crc32_of_each(self.images) if image_crc32 is None else image_crc32
        crc = zlib.crc32(images.astype("<u4").tobytes())
        for column in (self.features, self.labels, self.ids, self.groups, self.sources):
            crc = zlib.crc32(_bytes(column), crc)
        return f"{crc:08x}"


def crc32_of_each(images: np.ndarray) -> np.ndarray:
    """A CRC-32 for each image, (B,) uint32: equal images have equal ones."""
    return np.array([zlib.crc32(_bytes(image)) for image in images], dtype=np.uint32)


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8) if array.size else b"")  # type: ignore[arg-type]


def encode(texts: np.ndarray, size: int | None = None) -> np.ndarray:
    """Strings as the fixed-length UTF-8 that HDF5 stores, of `size` bytes or as many as the longest needs."""
    encoded = np.char.encode(texts, "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", size or encoded.dtype.itemsize))


def write_shard(
    file: Path, rows: int, blocks: Iterator[Rows], attributes: dict[str, Any], compression: str = "none"
) -> tuple[tuple[str, ...], list[int]]:
    """Write `blocks` of BLOCK_ROWS rows, `rows` in all, to a new HDF5 file.

    Returns the checksum of each block, and that of each image.
    """
    checksums, image_checksums = [], list[int]()
    with h5py.File(file, "w", alignment_threshold=ALIGNMENT, alignment_interval=ALIGNMENT) as shard:
        shard.attrs.update(attributes)
        for block in blocks:
            start, stop = len(image_checksums), len(image_checksums) + len(block.labels)
            for name in COLUMNS:
                part = getattr(block, name)
                if start == 0:
                    squeeze = {"compression": compression, "chunks": (1, *part.shape[1:])}
                    options = squeeze if name == "images" and compression != "none" else {}
                    shard.create_dataset(name, (rows, *part.shape[1:]), part.dtype, **options)
                shard[name][start:stop] = part
            of_images = crc32_of_each(block.images)
            checksums.append(block.crc32(of_images))
            image_checksums += of_images.tolist()
    assert len(image_checksums) == rows, f"{file}: {len(image_checksums)} rows came, {rows} were announced"
    return tuple(checksums), image_checksums


def describe_shard(dataset: Path, file: Path, rows: int, block_crc32: tuple[str, ...]) -> ShardRecord:
    """The manifest's record of a complete shard."""
    name = file.relative_to(dataset).as_posix()
    return ShardRecord(file=name, rows=rows, bytes=file.stat().st_size, crc32=file_crc32(file), block_crc32=block_crc32)


def file_crc32(file: Path) -> str:
    """Checksum of a file's bytes."""
    crc = 0
    with file.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(1 << 20))  # small enough to stay in the processor's cache
        while count := stream.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return f"{crc:08x}"


# ---- checking ---------------------------------------------------------------------------------------------------


def damage(dataset: Path, record: ShardRecord) -> str:
    """What of a shard is not as it was packed: nothing, or its name and the rows. Reads every byte."""
    file = dataset / record.file
    if not file.is_file():
        return f"{file}: is missing"
    size = file.stat().st_size
    if size != record.bytes:
        return f"{file}: has {size:,} bytes, not {record.bytes:,}"
    if file_crc32(file) == record.crc32:
        return ""
    try:
        with h5py.File(file, "r", locking=False) as shard:
            blocks = [number for number in range(len(record.block_crc32)) if _block_differs(shard, record, number)]
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        return f"{file}: its header is damaged ({error}), its rows cannot be told"
    if not blocks:
        return f"{file}: is damaged outside its rows, in the header or the padding"
    ranges = [f"{n * BLOCK_ROWS}-{min((n + 1) * BLOCK_ROWS, record.rows) - 1}" for n in blocks]
    return f"{file}: is damaged in rows {', '.join(ranges)}"


def _block_differs(shard: h5py.File, record: ShardRecord, number: int) -> bool:
    rows = slice(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
    try:
        return Rows(*(shard[name][rows] for name in COLUMNS)).crc32() != record.block_crc32[number]
    except OSError:  # a compressed row that cannot be unpacked
        return True


# ---- reading ----------------------------------------------------------------------------------------------------


def read_row(file: Path, row: int) -> tuple[np.ndarray, str]:
    """Image and id of one row of a shard."""
    with h5py.File(file, "r", locking=False) as shard:
        return shard["images"][row], shard["ids"].asstr()[row]

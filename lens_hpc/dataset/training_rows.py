"""What a run keeps of the rows that it was trained on, to know them again in another dataset.

    training_rows.parquet
        id_hash     uint64, of the row's id
        pixel_hash  uint64, of its cutout as stored
        ra, dec     float64, degrees; null without columns.keep of them

The ids and pixels themselves are not in it. Two surveys may give the same id to different objects,
so an id alone proves little; equal pixels or positions do.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens_hpc import files
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.positions import find_nearest, positions_of
from lens_hpc.dataset.shards import BLOCK_ROWS, hash_pixels
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.layout import KEPT_COLUMNS

SAME_PLACE_ARCSEC = 1.0
ROWS_AT_ONCE = 65536


class RowHashes(NamedTuple):
    """The identity of N rows."""

    ids: np.ndarray
    """(N,) uint64."""
    pixels: np.ndarray
    """(N,) uint64."""
    positions: np.ndarray
    """(N, 2), right ascension and declination, NaN where unknown. *Unit: degrees*"""


class SeenRows(NamedTuple):
    """Which of N rows a run was trained on, (N,) bool, by each way to know them again."""

    by_id: np.ndarray
    by_pixels: np.ndarray
    by_position: np.ndarray


def has_pixel_hashes(manifest: Manifest) -> bool:
    """Whether shards keep a hash of each cutout: those of earlier versions do not."""
    return manifest.schema_version >= 3


def hash_rows(split: Split) -> RowHashes:
    """Return the identity of the rows of a split, in their order."""
    positions = np.full((len(split), 2), np.nan)
    if KEPT_COLUMNS in split.manifest.files:
        positions = positions_of(split.kept_columns())
    return RowHashes(_id_hashes(split), _pixel_hashes(split), positions)


def _id_hashes(split: Split) -> np.ndarray:
    """Return the hashes of all ids, with the texts of some rows at a time in memory."""
    hashes = np.empty(len(split), dtype=np.uint64)
    for start in range(0, len(split), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(split)))
        texts = split.ids(rows)
        digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
        hashes[rows] = np.frombuffer(b"".join(digests), dtype="<u8")
    return hashes


def _pixel_hashes(split: Split) -> np.ndarray:
    """Return the stored hashes, or those of the images of a dataset that is older than these."""
    rows = np.arange(len(split))
    if has_pixel_hashes(split.manifest):
        return split.take("pixel_hashes", rows)
    blocks = np.split(rows, range(BLOCK_ROWS, len(rows), BLOCK_ROWS))
    return np.concatenate([hash_pixels(split.take("images", block)) for block in blocks])


def write_row_hashes(file: Path, rows: RowHashes) -> None:
    """Write the identity of rows as Parquet, completely or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ra, dec = rows.positions.T
    table = pa.table(
        {
            "id_hash": rows.ids,
            "pixel_hash": rows.pixels,
            "ra": pa.array(ra, from_pandas=True),
            "dec": pa.array(dec, from_pandas=True),
        }
    )
    with files.whole_file(file) as partial:
        pq.write_table(table, partial)


def read_row_hashes(file: Path) -> RowHashes | None:
    """Read what `write_row_hashes` wrote; None where a run is older than that."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        return None
    hashes = [pa.field(name, pa.uint64(), nullable=False) for name in ("id_hash", "pixel_hash")]
    positions = [pa.field(name, pa.float64()) for name in ("ra", "dec")]
    try:
        # What has nulls, or another type, cannot be cast.
        table = pq.read_table(file).cast(pa.schema([*hashes, *positions]))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file}: is damaged ({error}); copy the run again") from error

    ra, dec = (table[name].to_numpy() for name in ("ra", "dec"))
    return RowHashes(
        ids=table["id_hash"].to_numpy(),
        pixels=table["pixel_hash"].to_numpy(),
        positions=np.stack([ra, dec], axis=1),
    )


def find_seen_rows(
    rows: RowHashes, trained: RowHashes, within_arcsec: float = SAME_PLACE_ARCSEC
) -> SeenRows:
    """Say which rows are among those that a run was trained on.

    Positions are the same within `within_arcsec`.
    """
    return SeenRows(
        by_id=np.isin(rows.ids, trained.ids),
        by_pixels=np.isin(rows.pixels, trained.pixels),
        by_position=_are_near(rows.positions, trained.positions, within_arcsec),
    )


def _are_near(positions: np.ndarray, others: np.ndarray, within_arcsec: float) -> np.ndarray:
    is_near = np.zeros(len(positions), dtype=bool)
    known = np.isfinite(positions).all(axis=1)
    others = others[np.isfinite(others).all(axis=1)]
    if not known.any() or not len(others):
        return is_near

    _, separations = find_nearest(positions[known], others, within_arcsec)
    is_near[known] = np.isfinite(separations)
    return is_near

"""What a dataset says of itself, in its manifest and in each shard, however it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from lens_hpc._version import __version__
from lens_hpc.dataset import shards
from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import record_tables
from lens_hpc.dataset.manifest import (
    SCHEMA_VERSION,
    Manifest,
    ShardRecord,
    SourceRecord,
    SplitRecord,
)
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.packing.training_statistics import BandRanges, training_statistics

TWINS_SHOWN = 3


@dataclass(frozen=True)
class DatasetFacts:
    """What the maker of a dataset knows of all its rows."""

    name: str
    bands: tuple[str, ...]
    height: int
    """Pixels of a cutout, as `width`."""
    width: int
    dtype: Literal["float32", "float16", "uint8"]
    pixel_scale_arcsec: float
    units: str
    features: tuple[str, ...]
    recipe: dict[str, Any]
    """How it was made, as JSON would read it back."""
    zero_point: Mapping[str, float | None] = field(default_factory=dict)
    """Magnitude of one unit of flux in each band; None or absent: unknown."""
    gain: Mapping[str, float | None] = field(default_factory=dict)
    """Electrons per unit of each band; None or absent: unknown."""
    resampled: tuple[str, ...] = ()
    """Bands that were resampled to the grid of the finest."""
    grouped: bool = False
    seed: int = 0


class WrittenShard(NamedTuple):
    """A complete shard."""

    split: str
    record: ShardRecord
    image_crc32: list[int]
    """Checksum of each image."""


def rows_of_shard(row_bytes: int, shard_mib: int) -> int:
    """Return how many rows a shard of about so many MiB has: whole blocks, and at least one."""
    block_bytes = row_bytes * shards.BLOCK_ROWS
    blocks = max((shard_mib << 20) // block_bytes, 1)
    return blocks * shards.BLOCK_ROWS


def shard_attributes(facts: DatasetFacts, split: str, file: str) -> dict[str, object]:
    """Return what a shard says of itself."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": facts.name,
        "bands": list(facts.bands),
        "features": list(facts.features),
        "pixel_scale_arcsec": facts.pixel_scale_arcsec,
        "units": facts.units,
        "split": split,
        "file": file,
    }


# ---- the manifest ----


def make_split_record(labels: np.ndarray, records: Sequence[ShardRecord]) -> SplitRecord:
    """Return the record of a split with these labels (N,) and shards."""
    return SplitRecord(
        rows=len(labels),
        lenses=int((labels == 1).sum()),
        non_lenses=int((labels == 0).sum()),
        unlabelled=int((labels == -1).sum()),
        shards=tuple(records),
    )


def draft_manifest(
    folder: Path,
    facts: DatasetFacts,
    splits: dict[str, SplitRecord],
    duplicates: int,
    rejected: int = 0,
    source: SourceRecord | None = None,
) -> Manifest:
    """Return the manifest of a folder whose shards and tables are there, without statistics.

    `duplicates` counts cutouts that are in two splits, `rejected` rows that were left out.
    """
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=facts.name,
        bands=facts.bands,
        height=facts.height,
        width=facts.width,
        dtype=facts.dtype,
        pixel_scale_arcsec=facts.pixel_scale_arcsec,
        resampled=facts.resampled,
        units=facts.units,
        zero_point=dict(facts.zero_point),
        gain=dict(facts.gain),
        features=facts.features,
        grouped=facts.grouped,
        seed=facts.seed,
        block_rows=shards.BLOCK_ROWS,
        statistics=None,
        splits=splits,
        rejected=rejected,
        duplicates_across_splits=duplicates,
        recipe=facts.recipe,
        created_by=f"lens_hpc {__version__}",
        files=record_tables(folder),
        source=source,
    )


def check_training_features(names: Sequence[str], features: np.ndarray) -> None:
    """Raise UserError for one of these features (N, F) of training that no row has."""
    is_missing = np.isnan(features).all(axis=0)
    empty = [name for name, missing in zip(names, is_missing, strict=True) if missing]
    if empty:
        raise UserError(
            f"{', '.join(empty)}: missing in every training row; take it out of columns.features"
        )


def with_statistics(
    folder: Path, manifest: Manifest, features: np.ndarray, ranges: BandRanges
) -> Manifest:
    """Return the manifest with the statistics of its split train.

    `features` (N, F) are those of its rows, and `ranges` those of its pixels. Raises UserError for
    a feature that no row has.
    """
    check_training_features(manifest.features, features)
    train = ColumnReader(folder, "train", manifest=manifest)
    statistics = training_statistics(train, features, ranges, manifest.seed)
    return manifest.model_copy(update={"statistics": statistics})


def manifest_text(manifest: Manifest) -> str:
    """Return what the file of a manifest holds."""
    return manifest.model_dump_json(indent=1) + "\n"


# ---- duplicates ----


def count_duplicates(folder: Path, written: Sequence[WrittenShard]) -> int:
    """Count the cutouts that are identical to one in another split; warn with the first few."""
    names = []
    for (shard, row), (other_shard, other_row) in _equal_checksums(written):
        if shard.split == other_shard.split:
            continue

        # Different cutouts may have one checksum by chance.
        image, name = shards.read_row(folder / shard.record.file, row)
        other_image, other_name = shards.read_row(folder / other_shard.record.file, other_row)
        if np.array_equal(image, other_image):
            names.append(f"{name} ({shard.split}) and {other_name} ({other_shard.split})")

    if names:
        shown = "; ".join(names[:TWINS_SHOWN])
        if len(names) > TWINS_SHOWN:
            shown += " ..."
        logger.warning(
            "%d cutouts are identical to one in another split: %s; "
            "keep them together with columns.group",
            len(names),
            shown,
        )
    return len(names)


def _equal_checksums(
    written: Sequence[WrittenShard],
) -> list[tuple[tuple[WrittenShard, int], tuple[WrittenShard, int]]]:
    """Return pairs of (shard, row in it) whose images have the same checksum."""
    counts = [len(shard.image_crc32) for shard in written]
    codes = np.concatenate([np.array(shard.image_crc32, dtype=np.uint32) for shard in written])
    shard_numbers = np.repeat(np.arange(len(written)), counts)
    row_numbers = np.concatenate([np.arange(count) for count in counts])

    # Equal checksums are neighbours once they are sorted.
    order = np.argsort(codes, kind="stable")
    is_equal = codes[order[1:]] == codes[order[:-1]]
    pairs = []
    for position in np.flatnonzero(is_equal):
        one, other = (
            (written[shard_numbers[index]], int(row_numbers[index]))
            for index in order[position : position + 2]
        )
        pairs.append((one, other))
    return pairs

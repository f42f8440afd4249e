"""The manifest of a dataset: what it holds, and how it was made."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lens_hpc.errors import UserError
from lens_hpc.layout import MANIFEST

SCHEMA_VERSION = 3
READABLE_VERSIONS = (2, 3)

PERCENTILES = (0.1, 1, 16, 50, 84, 99, 99.9)


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


class FileRecord(_Record):
    """A file beside the shards."""

    bytes: int
    crc32: str


class Distribution(_Record):
    """How the values of a feature, or the pixels of a band, are distributed in training."""

    min: float
    max: float
    percentiles: dict[str, float]
    """Value at each of PERCENTILES, which are the keys: "0.1", "1", ..., "99.9"."""
    missing: int
    """Values that the source does not have: empty cells, or pixels without a measurement."""


class Statistics(_Record):
    """Statistics of the training split alone; missing features are left out."""

    feature_min: tuple[float, ...]
    feature_max: tuple[float, ...]
    feature_median: tuple[float, ...]
    image_max: float
    """The brightest pixel of all bands, and at least 0."""
    features: tuple[Distribution, ...] = ()
    """For each feature, over all rows. Schema 2 has none."""
    bands: tuple[Distribution, ...] = ()
    """For each band, of the pixels as stored. Minimum and maximum are those of every pixel; the
    percentiles are exact for up to two million pixels a band, and beyond that those of a sample
    from rows all over the split. Schema 2 has none."""


class SourceRecord(_Record):
    """What a dataset was made from: it tells whether the source has changed since."""

    content: dict[str, str]
    """SHA-256 of each part of the catalogue that the recipe uses, such as the labels."""
    files: dict[str, str]
    """For each shard, SHA-256 of the times and sizes of the files that its images come from."""


class Manifest(_Record):
    """What manifest.json holds."""

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
    zero_point: dict[str, float | None] = {}
    """Magnitude of one unit of flux in each band; null or absent: unknown."""
    gain: dict[str, float | None] = {}
    """Electrons per unit of each band; null or absent: unknown."""
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
    files: dict[str, FileRecord] = {}
    """Tables beside the shards, by name: columns.parquet, truth.parquet."""
    source: SourceRecord | None = None
    """None for schema 2, which does not know."""

    def is_of_same_rows(self, other: "Manifest") -> bool:
        """Say whether two manifests are of the same data, though files were touched in between."""
        return self.model_copy(update={"source": None}) == other.model_copy(update={"source": None})


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in a folder.

    Raises UserError when there is none, or when it is damaged or of a schema that is not read.
    """
    file = folder / MANIFEST
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        version = tree.get("schema_version")
        if version not in READABLE_VERSIONS:
            readable = " and ".join(str(known) for known in READABLE_VERSIONS)
            raise UserError(
                f"{file}: schema version {version}, but this lens_hpc reads {readable}; "
                "pack it anew, or use the lens_hpc that packed it"
            )
        return Manifest.model_validate(tree)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is not a packed dataset: it has no manifest.json; "
            "make one with lens-hpc pack"
        ) from error
    except (OSError, json.JSONDecodeError, AttributeError, ValidationError) as error:
        raise UserError(f"{file}: is damaged ({error}); pack the dataset anew") from error

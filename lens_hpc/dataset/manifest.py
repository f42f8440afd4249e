"""The manifest of a dataset: what it holds, and how it was made."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lens_hpc.errors import UserError
from lens_hpc.layout import MANIFEST

SCHEMA_VERSION = 2


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
    """Read the manifest in a folder.

    Raises UserError when there is none, or when it is damaged or of another schema.
    """
    file = folder / MANIFEST
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        version = tree.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{file}: schema version {version}, but this lens_hpc reads {SCHEMA_VERSION}; "
                "pack it anew"
            )
        return Manifest.model_validate(tree)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is not a packed dataset: it has no manifest.json; "
            "make one with lens-hpc pack"
        ) from error
    except (OSError, json.JSONDecodeError, AttributeError, ValidationError) as error:
        raise UserError(f"{file}: is damaged ({error}); pack the dataset anew") from error

"""The plan of a dataset: which row of the catalogue lies where.

It is a function of recipe and source alone, so every task of a packing makes the same plan.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from lens_hpc import files, layout
from lens_hpc.dataset import shards
from lens_hpc.dataset.manifest import MOST_PARTS, SCHEMA_VERSION
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue import Catalogue, read_catalogue
from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.describing import (
    DatasetFacts,
    check_training_features,
    rows_of_shard,
)
from lens_hpc.packing.image_formats import find_reader
from lens_hpc.packing.mosaic_images import MosaicImages
from lens_hpc.packing.reasons import Listing, one_reason
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.splits import order_rows
from lens_hpc.packing.stacks import Stack, files_of_stacks, open_stack
from lens_hpc.packing.watching import read_shapes

MIB = 1 << 20
MOST_LISTED = 20
MOST_OF_A_REASON = 5
CUTOUTS_TRIED = 32
MOST_SHARDS = MOST_PARTS // 10
"""A manifest of more could not be read: each shard has up to ten of its parts."""
NOT_OF_THE_RECIPE = {
    *("source", "output", "processes", "task", "tasks", "dry_run", "code"),
    "tile_memory",
}


@dataclass(frozen=True)
class Shard:
    """The rows that one file shall hold, in order."""

    split: str
    number: int
    rows: np.ndarray
    """Their numbers in the catalogue."""

    @property
    def file(self) -> str:
        """Name in the dataset."""
        return layout.shard_file(self.split, self.number)


@dataclass(frozen=True)
class Plan:
    """What to pack: the catalogue, its cutouts, and the shards that they go to."""

    settings: PackSettings
    catalogue: Catalogue
    cutouts: Cutouts
    shards: list[Shard]

    @cached_property
    def ids(self) -> np.ndarray:
        """As they are stored, (N,) UTF-8."""
        return shards.encode_texts(self.catalogue.ids)

    @cached_property
    def groups(self) -> np.ndarray:
        """As they are stored, (N,) UTF-8, empty without groups."""
        groups = self.catalogue.groups
        return shards.encode_texts(
            np.zeros(len(self.catalogue), "U1") if groups is None else groups
        )

    @cached_property
    def facts(self) -> DatasetFacts:
        """What the dataset says of itself."""
        settings = self.settings
        assert self.cutouts.shape is not None
        _, height, width = self.cutouts.shape
        return DatasetFacts(
            name=settings.name,
            bands=settings.bands,
            height=height,
            width=width,
            dtype=settings.dtype,
            pixel_scale_arcsec=settings.finest_pixel_scale,
            units=settings.units,
            features=settings.columns.features,
            recipe=recipe_of(settings),
            zero_point=by_band(settings.zero_point, settings.bands),
            gain=by_band(settings.gain, settings.bands),
            resampled=_resampled_bands(settings, self.cutouts),
            grouped=settings.columns.group is not None,
            seed=settings.seed,
        )

    @property
    def folder(self) -> Path:
        """Where shards are written until all are there."""
        return files.partial(self.settings.output)

    def is_published(self) -> bool:
        """Say whether the dataset has its name: one of the tasks was the last."""
        return (self.settings.output / layout.MANIFEST).exists()

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of the dataset."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    def shards_of(self, split: str) -> list[Shard]:
        """Return the shards of a split."""
        return [shard for shard in self.shards if shard.split == split]

    def fingerprint(self, shard: Shard) -> str:
        """Return the SHA-256 of all that a shard is made from: the recipe, catalogue and disk."""
        recipe = [recipe_of(self.settings), stack_stamps(self.settings), SCHEMA_VERSION]
        digest = hashlib.sha256(json.dumps(recipe).encode())

        catalogue = self.catalogue
        for column in (
            self.ids,
            self.groups,
            catalogue.table_rows,
            catalogue.stamps,
            catalogue.labels,
            catalogue.features,
            catalogue.targets,
            catalogue.weights,
        ):
            digest.update(column[shard.rows].tobytes())

        if catalogue.positions is not None:
            digest.update(catalogue.positions[shard.rows].tobytes())
        for texts in (catalogue.paths, catalogue.hdus, catalogue.keys):
            if texts is not None:
                joined = "\0".join(map(str, texts[shard.rows].ravel()))
                digest.update(joined.encode() + b"\0")
        return digest.hexdigest()


def make_plan(settings: PackSettings) -> Plan:
    """Read and check the catalogue, and decide which row lies where; nothing is written.

    Raises UserError for what is wrong with the recipe, the catalogue or its images.
    """
    catalogue = read_catalogue(settings, settings.source)
    good_rows = find_good_rows(settings, catalogue)
    order = order_rows(settings, catalogue, good_rows)
    check_features(settings, catalogue, order)
    cutouts = open_cutouts(settings, catalogue, good_rows)

    return Plan(
        settings=settings,
        catalogue=catalogue,
        cutouts=cutouts,
        shards=_cut_into_shards(settings, cutouts, order),
    )


# ---- rows and their images ----


def open_cutouts(settings: PackSettings, catalogue: Catalogue, good_rows: np.ndarray) -> Cutouts:
    """Return the cutouts of a catalogue's rows, of one shape, which some good rows tell.

    Raises UserError when none of these can be read, or when they differ and `on_bad` is error.
    """
    cutouts = Cutouts(
        settings,
        settings.source,
        catalogue.paths,
        find_reader(settings.format, settings.code),
        stack=_images_of_all(settings, catalogue),
        hdus=catalogue.hdus,
        keys=catalogue.keys,
    )
    cutouts.shape = _common_shape(settings, cutouts, good_rows)
    return cutouts


def _images_of_all(settings: PackSettings, catalogue: Catalogue) -> Stack | MosaicImages | None:
    """Return what holds the images of many rows; None where each row has its own files."""
    if catalogue.positions is not None:
        memory_bytes = settings.tile_memory * MIB
        return MosaicImages(
            settings, settings.source, catalogue.paths, catalogue.positions, memory_bytes
        )
    if settings.stack is None:
        return None
    return open_stack(settings, settings.source, catalogue.table_rows, catalogue.table_length)


def find_good_rows(settings: PackSettings, catalogue: Catalogue) -> np.ndarray:
    """Return the numbers of the rows that can be packed; UserError for none, or for bad ones."""
    bad_rows = np.fromiter(catalogue.bad, dtype=np.int64)
    is_good = np.ones(len(catalogue), dtype=bool)
    is_good[bad_rows] = False
    good_rows = np.flatnonzero(is_good)

    must_be_good = settings.on_bad == "error"
    if not len(good_rows) or (len(bad_rows) and must_be_good):
        raise bad_rows_error(settings, catalogue, catalogue.bad)
    return good_rows


def bad_rows_error(settings: PackSettings, catalogue: Catalogue, bad: dict[int, str]) -> UserError:
    """Return the error that lists bad rows and their reasons."""
    where = settings.source
    if settings.catalogue is not None:
        where = settings.source / settings.catalogue

    count = len(bad)
    lines = [f"{where}: {count:,} of {len(catalogue):,} rows cannot be packed:"]
    shared = one_reason(bad, len(catalogue))
    if shared:
        lines.append(f"  {shared}")
    else:
        lines += _list_bad_rows(catalogue, bad, settings.source)
    lines.append("Mend them, or pack the others with on_bad=skip")
    return UserError("\n".join(lines))


def _list_bad_rows(catalogue: Catalogue, bad: dict[int, str], source: Path) -> list[str]:
    """Return a line for each bad row, or for all of those that a damaged mosaic has in common."""
    rows_of_reason: dict[str, list[int]] = {}
    for row in sorted(bad):
        rows_of_reason.setdefault(bad[row], []).append(row)

    listing = Listing(MOST_LISTED)
    for reason, rows in rows_of_reason.items():
        many = f"{len(rows):,} rows, such as " if len(rows) > MOST_OF_A_REASON else ""
        named = [
            f"row {catalogue.table_rows[row] + 1}, id {catalogue.ids[row]}"
            for row in rows[:MOST_OF_A_REASON]
        ]
        listing.add(f"{many}{'; '.join(named)}: {reason}", reason, len(rows))
    return listing.lines(source)


def check_features(
    settings: PackSettings, catalogue: Catalogue, order: dict[str, np.ndarray]
) -> None:
    """Raise UserError for a feature that no training row has: nothing could normalise it."""
    if "train" not in order or not np.isnan(catalogue.features).any():
        return

    check_training_features(settings.columns.features, catalogue.features[order["train"]])


def _common_shape(
    settings: PackSettings, cutouts: Cutouts, good_rows: np.ndarray
) -> tuple[int, ...]:
    """Return the shape of most of the cutouts tried, whose units decide how bands are resampled.

    Raises UserError when none can be read, or when sizes differ and nothing says what to do.
    """
    if settings.mosaics is not None:
        assert settings.size is not None
        return (len(settings.bands), *settings.size)

    shapes: Counter[tuple[int, ...]] = Counter()
    first_of_shape: dict[tuple[int, ...], int] = {}

    # Some from all over the catalogue, which may be sorted by whatever decides the size.
    step = max(len(good_rows) // CUTOUTS_TRIED, 1)
    tried = good_rows[::step].tolist()
    reasons = {}
    for row, found in zip(tried, read_shapes(cutouts, tried), strict=True):
        if isinstance(found, str):
            reasons[row] = found
        else:
            shapes[found] += 1
            first_of_shape.setdefault(found, row)

    if not shapes:
        shared = one_reason(reasons, len(tried))
        listing = Listing(MOST_LISTED)
        for reason in reasons.values():
            listing.add(reason, reason)
        listed = f"  {shared}" if shared else "\n".join(listing.lines(settings.source))
        raise UserError(f"none of the cutouts tried can be packed:\n{listed}")

    cutouts.decide_resampling([row for row in tried if row not in reasons])
    if len(shapes) > 1 and settings.on_bad == "error":
        sizes = []
        for shape, count in shapes.most_common():
            _, height, width = shape
            example = cutouts.images.name(first_of_shape[shape])
            sizes.append(f"{height} x {width} ({count}, such as {example})")
        listed = ", ".join(sizes)
        raise UserError(
            f"cutouts differ in height x width: {listed} of {shapes.total()} tried; "
            "set size=[height, width]"
        )
    return shapes.most_common(1)[0][0]


# ---- shards ----


def _cut_into_shards(
    settings: PackSettings, cutouts: Cutouts, order: dict[str, np.ndarray]
) -> list[Shard]:
    """Cut the rows of each split into shards of whole blocks, the last one excepted."""
    shard_rows = rows_of_shard(cutouts.row_bytes, settings.shard_mib)
    count = sum(math.ceil(len(rows) / shard_rows) for rows in order.values())
    if count > MOST_SHARDS:
        raise UserError(
            f"shard_mib = {settings.shard_mib}: the dataset would have {count:,} shards, and may "
            f"have {MOST_SHARDS:,}; raise shard_mib"
        )

    planned = []
    for split, rows in order.items():
        cuts = range(shard_rows, len(rows), shard_rows)
        for number, part in enumerate(np.split(rows, cuts)):
            planned.append(Shard(split, number, part))
    return planned


# ---- the recipe ----


def _resampled_bands(settings: PackSettings, cutouts: Cutouts) -> tuple[str, ...]:
    """Return the bands whose pixels were wider than those of the finest."""
    if cutouts.pixel_ratios is None:
        return ()
    bands = zip(settings.bands, cutouts.pixel_ratios, strict=True)
    return tuple(band for band, ratio in bands if ratio > 1)


def by_band(
    setting: float | Mapping[str, float | None] | None, bands: tuple[str, ...]
) -> dict[str, float | None]:
    """Return the value of each band of a setting that is one for all, or a mapping."""
    if isinstance(setting, Mapping):
        return {band: setting[band] for band in bands}
    return dict.fromkeys(bands, setting)


def recipe_of(settings: PackSettings) -> dict[str, Any]:
    """Return the settings that decide what is in a dataset, as JSON would read them back."""
    return settings.model_dump(mode="json", exclude=NOT_OF_THE_RECIPE)


def is_same_recipe(packed: dict[str, Any], settings: PackSettings) -> bool:
    """Say whether a dataset was packed by the recipe in these settings.

    A setting that the dataset is older than is taken to have had its default.
    """
    places = {"source": settings.source, "output": settings.output}
    try:
        return recipe_of(PackSettings.model_validate(packed | places)) == recipe_of(settings)
    except ValidationError:
        return False


def stack_stamps(settings: PackSettings) -> list[list[int]]:
    """Return time and size of each file of the stacks."""
    if settings.stack is None:
        return []

    stamps = []
    for files_of_band in files_of_stacks(settings, settings.source).values():
        for file in files_of_band:
            status = (settings.source / file).stat()
            stamps.append([status.st_mtime_ns, status.st_size])
    return stamps

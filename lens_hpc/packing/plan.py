"""The plan of a dataset: which row of the catalogue lies where.

It is a function of recipe and source alone, so every task of a packing makes the same plan.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lens_hpc import files, layout
from lens_hpc.dataset import shards
from lens_hpc.dataset.manifest import SCHEMA_VERSION
from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue import Catalogue, read_catalogue
from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.image_formats import BadCutoutError, find_reader
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.splits import order_rows

MIB = 1 << 20
MOST_LISTED = 20
CUTOUTS_TRIED = 32
NOT_OF_THE_RECIPE = {"source", "output", "processes", "task", "tasks", "dry_run", "code"}


@dataclass(frozen=True)
class Shard:
    """The rows that one file shall hold, in order."""

    split: str
    number: int
    rows: np.ndarray
    """Their numbers in the catalogue."""
    fingerprint: str
    """SHA-256 of all that the file is made from."""

    @property
    def file(self) -> str:
        """Name in the dataset."""
        return layout.shard_file(self.split, self.number)


@dataclass(frozen=True)
class Plan:
    """What to pack: the catalogue, its cutouts, and the shards that they go to."""

    settings: PackSettings
    catalogue: Catalogue
    ids: np.ndarray
    """As they are stored, (N,) UTF-8."""
    groups: np.ndarray
    """As they are stored, (N,) UTF-8, empty without groups."""
    cutouts: Cutouts
    shards: list[Shard]

    @property
    def folder(self) -> Path:
        """Where shards are written until all are there."""
        return files.partial(self.settings.output)

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of the dataset."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    def shards_of(self, split: str) -> list[Shard]:
        """Return the shards of a split."""
        return [shard for shard in self.shards if shard.split == split]


def make_plan(settings: PackSettings) -> Plan:
    """Read and check the catalogue, and decide which row lies where; nothing is written.

    Raises UserError for what is wrong with the recipe, the catalogue or its images.
    """
    reader = find_reader(settings.format, settings.code)
    catalogue = read_catalogue(settings, settings.source)
    good_rows = _good_rows(settings, catalogue)
    order = order_rows(settings, catalogue, good_rows)
    try:
        cutouts = Cutouts(settings, settings.source, catalogue.paths, reader)
    except BadCutoutError as error:
        raise UserError(str(error)) from error

    check_features(settings, catalogue, order)
    cutouts.shape = _common_shape(settings, cutouts, good_rows)

    groups = catalogue.groups
    if groups is None:
        groups = np.full(len(catalogue), "")
    return Plan(
        settings=settings,
        catalogue=catalogue,
        ids=shards.encode_texts(catalogue.ids),
        groups=shards.encode_texts(groups),
        cutouts=cutouts,
        shards=_cut_into_shards(settings, catalogue, cutouts, order),
    )


# ---- rows and their images ----


def _good_rows(settings: PackSettings, catalogue: Catalogue) -> np.ndarray:
    """Return the numbers of the rows that can be packed; UserError for none, or for bad ones."""
    bad_rows = np.fromiter(catalogue.bad, dtype=np.int64)
    good_rows = np.setdiff1d(np.arange(len(catalogue)), bad_rows)

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
    for row in sorted(bad)[:MOST_LISTED]:
        identifier = catalogue.ids[row]
        lines.append(f"  row {row + 1}, id {identifier}: {bad[row]}")

    if count > MOST_LISTED:
        lines.append(f"  and {count - MOST_LISTED:,} more")
    lines.append("Mend them, or pack the others with on_bad=skip")
    return UserError("\n".join(lines))


def check_features(
    settings: PackSettings, catalogue: Catalogue, order: dict[str, np.ndarray]
) -> None:
    """Raise UserError for a feature that no training row has: nothing could normalise it."""
    if "train" not in order:
        return

    is_missing = np.isnan(catalogue.features[order["train"]]).all(axis=0)
    names = zip(settings.columns.features, is_missing, strict=True)
    empty = [name for name, missing in names if missing]
    if empty:
        raise UserError(
            f"{', '.join(empty)}: missing in every training row; take it out of columns.features"
        )


def _common_shape(
    settings: PackSettings, cutouts: Cutouts, good_rows: np.ndarray
) -> tuple[int, ...]:
    """Return the shape of most of the cutouts tried.

    Raises UserError when none can be read, or when sizes differ and nothing says what to do.
    """
    shapes: Counter[tuple[int, ...]] = Counter()
    reasons = []

    # Some from all over the catalogue, which may be sorted by whatever decides the size.
    step = max(len(good_rows) // CUTOUTS_TRIED, 1)
    for row in good_rows[::step]:
        try:
            shapes[cutouts[row].shape] += 1
        except BadCutoutError as error:
            reasons.append(str(error))

    if not shapes:
        listed = "\n  ".join(reasons[:MOST_LISTED])
        raise UserError(f"none of the cutouts tried can be packed:\n  {listed}")

    if len(shapes) > 1 and settings.on_bad == "error":
        sizes = []
        for (_, height, width), count in shapes.most_common():
            sizes.append(f"{height} x {width} ({count})")
        listed = ", ".join(sizes)
        raise UserError(
            f"cutouts differ in height x width: {listed} of {shapes.total()} tried; "
            "set size=[height, width]"
        )
    return shapes.most_common(1)[0][0]


# ---- shards ----


def _cut_into_shards(
    settings: PackSettings, catalogue: Catalogue, cutouts: Cutouts, order: dict[str, np.ndarray]
) -> list[Shard]:
    """Cut the rows of each split into shards of whole blocks, the last one excepted."""
    block_bytes = cutouts.row_bytes * shards.BLOCK_ROWS
    blocks = max(settings.shard_mib * MIB // block_bytes, 1)
    shard_rows = blocks * shards.BLOCK_ROWS

    recipe = json.dumps([recipe_of(settings), _stack_stamp(settings), SCHEMA_VERSION])
    planned = []
    for split, rows in order.items():
        cuts = range(shard_rows, len(rows), shard_rows)
        for number, part in enumerate(np.split(rows, cuts)):
            fingerprint = shard_fingerprint(recipe, catalogue, part)
            planned.append(Shard(split, number, part, fingerprint))
    return planned


def recipe_of(settings: PackSettings) -> dict[str, Any]:
    """Return the settings that decide what is in a dataset, as JSON would read them back."""
    recipe = settings.model_dump(mode="json", exclude=NOT_OF_THE_RECIPE)

    # Datasets that are older than this setting must still be known as the same.
    if recipe["format"] is None:
        del recipe["format"]
    return recipe


def _stack_stamp(settings: PackSettings) -> list[int]:
    """Return time and size of the stack, where there is one."""
    if settings.stack is None:
        return []
    status = (settings.source / settings.stack).stat()
    return [status.st_mtime_ns, status.st_size]


def shard_fingerprint(recipe: str, catalogue: Catalogue, rows: np.ndarray) -> str:
    """Return the SHA-256 of the recipe and of all that catalogue and disk say of these rows."""
    # The order is part of the fingerprint: shards of earlier versions are known by it.
    digest = hashlib.sha256(recipe.encode())
    digest.update(rows.tobytes())
    for column in (catalogue.stamps, catalogue.labels, catalogue.features):
        digest.update(column[rows].tobytes())

    texts = list(catalogue.ids[rows])
    texts += list(catalogue.paths[rows].ravel())
    if catalogue.groups is not None:
        texts += list(catalogue.groups[rows])
    digest.update("\0".join(texts).encode())
    return digest.hexdigest()

"""The plan of a dataset: which row of the catalogue lies where. A function of recipe and source alone."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lens_hpc import UserError, config, files
from lens_hpc.data import catalogue, shards, splits
from lens_hpc.data.catalogue import Catalogue
from lens_hpc.data.images import BadCutoutError, Cutouts

MIB = 1 << 20
MOST_LISTED = 20
SAMPLE = 32
NOTES = ".notes"
NOT_OF_THE_RECIPE = {"source", "output", "processes", "task", "tasks", "dry_run"}


@dataclass(frozen=True)
class Shard:
    """The rows that one file shall hold, in order."""

    split: str
    number: int
    rows: np.ndarray
    fingerprint: str
    """Of all that the file is made from."""

    @property
    def file(self) -> str:
        """Name in the dataset."""
        return f"{self.split}/shard-{self.number:05d}.h5"


@dataclass(frozen=True)
class Plan:
    """What to pack."""

    settings: config.Pack
    rows: Catalogue
    ids: np.ndarray
    groups: np.ndarray
    cutouts: Cutouts
    shards: list[Shard]

    @property
    def folder(self) -> Path:
        """Where shards are written until all are there."""
        return files.partial(self.settings.output)

    def note(self, shard: Shard) -> Path:
        """The file that says that a shard is complete, and what is in it."""
        return self.folder / NOTES / f"{shard.split}-{shard.number:05d}.json"


def make_plan(settings: config.Pack) -> Plan:
    """Read and check the catalogue; decide which row lies where. Nothing is written."""
    rows = catalogue.read(settings, settings.source)
    if rows.bad and settings.on_bad == "error":
        raise refusal(settings, rows.bad, rows)
    good = np.setdiff1d(np.arange(len(rows.ids)), np.fromiter(rows.bad, dtype=np.int64))
    if not len(good):
        raise refusal(settings, rows.bad, rows)
    order = splits.draw_order(settings, rows, good)
    try:
        cutouts = Cutouts(settings, settings.source, rows.paths)
    except BadCutoutError as error:
        raise UserError(str(error)) from error
    check_features(settings, rows, order)
    cutouts.shape = common_shape(settings, cutouts, good)
    image_bytes = int(np.prod(cutouts.shape)) * np.dtype(settings.dtype).itemsize
    shard_rows = max(settings.shard_mib * MIB // (image_bytes * shards.BLOCK_ROWS), 1) * shards.BLOCK_ROWS
    recipe = json.dumps([recipe_of(settings), stack_stamp(settings), shards.SCHEMA_VERSION])
    pieces = [
        Shard(split, number, part, fingerprint(recipe, rows, part))
        for split, members in order.items()
        for number, part in enumerate(np.split(members, range(shard_rows, len(members), shard_rows)))
    ]
    groups = np.full(len(rows.ids), "") if rows.groups is None else rows.groups
    return Plan(settings, rows, shards.encode(rows.ids), shards.encode(groups), cutouts, pieces)


def check_features(settings: config.Pack, rows: Catalogue, order: dict[str, np.ndarray]) -> None:
    """UserError for a feature that no training row has: there is nothing to normalise it with."""
    missing = np.isnan(rows.features[order["train"]]).all(axis=0) if "train" in order else []
    empty = [name for name, absent in zip(settings.columns.features, missing, strict=False) if absent]
    if empty:
        raise UserError(f"{', '.join(empty)}: missing in every training row; take it out of columns.features")


def common_shape(settings: config.Pack, cutouts: Cutouts, good: np.ndarray) -> tuple[int, ...]:
    """The shape of most of some cutouts. UserError when none can be read, or when sizes differ and nothing says how."""
    found: Counter[tuple[int, ...]] = Counter()
    reasons = []
    for row in good[:: max(len(good) // SAMPLE, 1)]:
        try:
            found[cutouts[row].shape] += 1
        except BadCutoutError as error:
            reasons.append(str(error))
    if not found:
        raise UserError("none of the cutouts tried can be packed:\n  " + "\n  ".join(reasons[:MOST_LISTED]))
    if len(found) > 1 and settings.on_bad == "error":
        sizes = ", ".join(f"{height} x {width} ({count})" for (_, height, width), count in found.most_common())
        raise UserError(f"cutouts differ in height x width: {sizes} of {found.total()} tried; set size=[height, width]")
    return found.most_common(1)[0][0]


def recipe_of(settings: config.Pack) -> dict[str, Any]:
    """The settings that decide what is in a dataset."""
    return settings.model_dump(mode="json", exclude=NOT_OF_THE_RECIPE)


def stack_stamp(settings: config.Pack) -> list[int]:
    """Time and size of the stack, where there is one."""
    if settings.stack is None:
        return []
    status = (settings.source / settings.stack).stat()
    return [status.st_mtime_ns, status.st_size]


def fingerprint(recipe: str, rows: Catalogue, members: np.ndarray) -> str:
    """SHA-256 of the recipe and of everything that the catalogue and the file system say of these rows."""
    digest = hashlib.sha256(recipe.encode())
    for column in (members, rows.stamps[members], rows.labels[members], rows.features[members]):
        digest.update(np.ascontiguousarray(column).tobytes())
    groups = () if rows.groups is None else rows.groups[members]
    digest.update("\0".join([*rows.ids[members], *rows.paths[members].ravel(), *groups]).encode())
    return digest.hexdigest()


def refusal(settings: config.Pack, bad: dict[int, str], rows: Catalogue) -> UserError:
    """The error that lists bad rows."""
    listed = [f"  row {row + 1}, id {rows.ids[row]}: {bad[row]}" for row in sorted(bad)[:MOST_LISTED]]
    more = [f"  and {len(bad) - MOST_LISTED:,} more"] if len(bad) > MOST_LISTED else []
    where = settings.source if settings.catalogue is None else settings.source / settings.catalogue
    return UserError(
        f"{where}: {len(bad):,} of {len(rows.ids):,} rows cannot be packed:\n"
        + "\n".join(listed + more)
        + "\nMend them, or pack the others with on_bad=skip"
    )

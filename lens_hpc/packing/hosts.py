"""The hosts of a dataset: which of its rows may be painted on, and which of them get an arc."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import read_kept_columns
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable, make_table
from lens_hpc.packing.conditions import evaluate_condition
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.linear_pixels import refuse_pictures

LABEL, SPLIT = "label", "split"
"""Names that a condition may use besides those of features and kept columns."""
CUTOUTS_LOOKED_AT = 64
"""Of each split, to find out whether pixels are fluxes."""


class HostSplit(NamedTuple):
    """The rows of a split, and which of them are hosts."""

    reader: ColumnReader
    is_painted: bool
    """Whether the recipe looks for hosts in it; if not, it stays as it is."""
    ids: np.ndarray
    """(N,) strings."""
    is_host: np.ndarray
    """(N,) bool."""
    is_drawn: np.ndarray
    """(N,) bool: hosts that get an arc."""
    catalogue: CatalogueTable
    """The columns that arcs are a function of, N rows."""

    def catalogue_of(self, row: int) -> dict[str, Any]:
        """Return the values of a row that arcs are a function of; NaN where there is none."""
        values = {name: column[row].as_py() for name, column in self.catalogue.columns.items()}
        return {name: math.nan if value is None else value for name, value in values.items()}


class HostDataset(NamedTuple):
    """A packed dataset, and which of its rows are hosts."""

    dataset: Path
    manifest: Manifest
    splits: dict[str, HostSplit]
    """All splits of the dataset; those that are not painted have no hosts."""

    def total(self) -> int:
        """Return how many rows are hosts."""
        return sum(int(split.is_host.sum()) for split in self.splits.values())


def open_hosts(dataset: Path, recipe: InjectionRecipe) -> HostDataset:
    """Find the hosts of a packed dataset, and draw which of them get an arc.

    Raises UserError for a condition, a column or a split that does not fit the dataset, for hosts
    that are labelled lenses, for pixels that are no fluxes, and where no host is left.
    """
    manifest = read_manifest(dataset)
    painted_splits = recipe.splits or tuple(manifest.splits)
    for name in painted_splits:
        if name not in manifest.splits:
            raise UserError(
                f"splits: {dataset} has no split {name!r}; it has {', '.join(manifest.splits)}"
            )

    kept = read_kept_columns(dataset, manifest)
    splits = {}
    for name in manifest.splits:
        reader = ColumnReader(dataset, name, manifest=manifest)
        splits[name] = _open_split(reader, kept, recipe, name in painted_splits)

    hosts = HostDataset(dataset, manifest, splits)
    _check_hosts(hosts, recipe)
    return hosts


def _open_split(
    reader: ColumnReader, kept: pd.DataFrame, recipe: InjectionRecipe, is_painted: bool
) -> HostSplit:
    ids = reader.ids()
    existing = [*reader.manifest.features, *kept.columns]
    needed = recipe.columns(reader.manifest.bands)
    _check_columns(needed, existing)
    catalogue = _read_columns(reader, kept, ids, needed, existing)

    is_host = np.zeros(len(ids), dtype=bool)
    if is_painted:
        labels = reader.take("labels", np.arange(len(ids)))
        asked = _read_columns(reader, kept, ids, recipe.condition_words(), existing)
        asked.columns[LABEL] = pa.array(labels.astype(np.int64))
        asked.columns[SPLIT] = pa.array([reader.name] * len(ids), pa.large_string())
        is_host = _choose(recipe.where, asked, ids)
        _refuse_lenses(ids[is_host & (labels == 1)])
    is_drawn = _draw(ids, is_host, recipe)
    return HostSplit(reader, is_painted, ids, is_host, is_drawn, catalogue)


def _check_columns(names: Iterable[str], existing: list[str]) -> None:
    for name in names:
        if name not in existing:
            raise UserError(
                f"the recipe needs a column {name!r}, which is neither a feature nor a kept column "
                f"of the hosts; they have {', '.join(existing) or 'none'}"
            )


def _read_columns(
    reader: ColumnReader,
    kept: pd.DataFrame,
    ids: np.ndarray,
    names: Iterable[str],
    existing: list[str],
) -> CatalogueTable:
    """Return features and kept columns of these names, those that there are."""
    rows = np.arange(len(ids))
    features = reader.manifest.features
    arrays: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        if name in features:
            values = reader.take("features", rows)[:, features.index(name)]
            arrays[name] = pa.array(np.ascontiguousarray(values))
        elif name in kept.columns:
            arrays[name] = pa.array(kept[name].reindex(ids))
    return make_table(arrays, list(arrays), [*existing, LABEL, SPLIT])


def _choose(where: str, table: CatalogueTable, ids: np.ndarray) -> np.ndarray:
    """Return which rows a condition is true for, (N,) bool."""
    verdict = evaluate_condition(where, table, "where")
    for row, reason in verdict.wrong.items():
        raise UserError(f"{ids[row]}: {reason}")
    return verdict.truth == 1


def _refuse_lenses(ids: np.ndarray) -> None:
    if len(ids):
        raise UserError(
            f"where: {len(ids):,} hosts are labelled lenses, such as {ids[0]}; an arc beside real "
            "arcs would be no lens of any law: add label != 1 to the condition"
        )


def _draw(ids: np.ndarray, is_host: np.ndarray, recipe: InjectionRecipe) -> np.ndarray:
    """Draw the share of the hosts that gets an arc: those with the smallest hashes, (N,) bool."""
    rows = np.flatnonzero(is_host)
    key = recipe.seed.to_bytes(8, "little")
    hashes = [hashlib.blake2b(ids[row].encode(), key=key, digest_size=8).digest() for row in rows]
    order = sorted(range(len(rows)), key=hashes.__getitem__)
    count = round(recipe.share * len(rows))

    is_drawn = np.zeros(len(ids), dtype=bool)
    is_drawn[rows[order[:count]]] = True
    return is_drawn


# ---- checks ----


def _check_hosts(hosts: HostDataset, recipe: InjectionRecipe) -> None:
    """Raise UserError where there is nothing to paint on, or pixels that are no fluxes."""
    drawn = sum(int(split.is_drawn.sum()) for split in hosts.splits.values())
    if not hosts.total():
        raise UserError(f"where = {recipe.where}: no row of {hosts.dataset} is a host")
    if not drawn:
        raise UserError(
            f"share = {recipe.share:g}: none of {hosts.total():,} hosts gets an arc; make it larger"
        )
    if recipe.pixels == "linear":
        refuse_pictures(hosts.dataset, _some_cutouts(hosts), "an arc cannot be added to them")


def _some_cutouts(hosts: HostDataset) -> list[np.ndarray]:
    """Return the first hosts of each split, a fair sample, as rows are shuffled."""
    cutouts = []
    for split in hosts.splits.values():
        rows = np.flatnonzero(split.is_host)[:CUTOUTS_LOOKED_AT]
        cutouts += list(split.reader.take("images", rows))
    return cutouts

"""Splits: given by the catalogue, or drawn by label and by whole groups; then shuffled."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.packing.catalogue import Catalogue
from lens_hpc.packing.recipe import Recipe

CLASS_NAMES = {1: "lenses", 0: "non-lenses"}
FEWEST_ROWS_TO_WARN = 20


def order_rows(
    recipe: Recipe, catalogue: Catalogue, good_rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the row numbers of each split, shuffled over the whole split."""
    labels = catalogue.labels[good_rows]
    groups = None
    if catalogue.groups is not None:
        groups = catalogue.groups[good_rows]

    if catalogue.splits is None:
        requested = list(recipe.splits)
        numbers = _draw_numbers(labels, groups, recipe.splits, recipe.seed)
        _warn_of_uneven_splits(recipe, numbers)
    else:
        names = catalogue.splits[good_rows]
        if recipe.validation:
            names = _draw_validation(recipe, names, labels, groups)
        found, numbers = np.unique(names, return_inverse=True)
        requested = found.tolist()

    rng = np.random.default_rng([recipe.seed, 1])
    order = {}
    for number, name in enumerate(requested):
        rows = good_rows[numbers == number]
        order[name] = rng.permutation(rows)
    _check_classes(recipe, order, catalogue.labels)
    return order


def _draw_validation(
    recipe: Recipe, names: np.ndarray, labels: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    """Return the given splits, with some rows of train drawn as val."""
    is_train = names == "train"
    if "val" in names or not is_train.any():
        raise UserError(
            f"validation = {recipe.validation}: the split column must have train, and no val"
        )

    train_groups = None if groups is None else groups[is_train]
    fractions = {"train": 1 - recipe.validation, "val": recipe.validation}
    drawn = draw_splits(labels[is_train], train_groups, fractions, recipe.seed)

    names = names.copy()
    names[is_train] = drawn
    return names


def _warn_of_uneven_splits(recipe: Recipe, numbers: np.ndarray) -> None:
    """Warn where whole groups keep a split from its fraction."""
    if len(numbers) < FEWEST_ROWS_TO_WARN:
        return

    for number, (name, fraction) in enumerate(recipe.splits.items()):
        share = float((numbers == number).mean())
        # A few percent are the price of whole groups.
        tolerance = max(0.05, 0.2 * fraction)
        if abs(share - fraction) > tolerance:
            logger.warning(
                "split %s has %.0f%% of the rows, not %.0f%%: a group in column %s is too large "
                "to fit better",
                name,
                100 * share,
                100 * fraction,
                recipe.columns.group,
            )


def _check_classes(recipe: Recipe, order: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """Raise UserError for an empty split, or for a train that lacks a class; else warn of one."""
    for name, rows in order.items():
        if not len(rows):
            raise UserError(
                f"splits: no row is left for the split {name!r}; use fewer splits, larger "
                "fractions or smaller groups"
            )

        present = np.unique(labels[rows])
        absent = [class_name for label, class_name in CLASS_NAMES.items() if label not in present]
        if recipe.columns.label is None or not absent:
            continue

        listed = " and no ".join(absent)
        if name == "train":
            raise UserError(f"the split train has no {listed}: check columns.label and the splits")
        logger.warning("split %s has no %s", name, listed)


# ---- drawing ----


def draw_splits(
    labels: np.ndarray, groups: np.ndarray | None, fractions: Mapping[str, float], seed: int
) -> np.ndarray:
    """Draw the split of each row, (N,) names, so that each has its fraction of every label.

    The fractions are exact to one row without groups; with groups (strings, (N,)), as near as
    whole groups allow.
    """
    names = np.array(list(fractions))
    return names[_draw_numbers(labels, groups, fractions, seed)]


def _draw_numbers(
    labels: np.ndarray, groups: np.ndarray | None, fractions: Mapping[str, float], seed: int
) -> np.ndarray:
    """Draw the number of the split of each row, (N,)."""
    rng = np.random.default_rng([seed, 0])
    shares = np.array(list(fractions.values()))
    if groups is None:
        return _draw_rows(rng, labels, shares)
    return _draw_groups(rng, labels, groups, shares)


def _draw_rows(rng: np.random.Generator, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Draw the number of the split of each row, (N,)."""
    split_numbers = np.empty(len(labels), dtype=np.int16)
    cumulative_shares = np.cumsum(shares)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rng.permutation(rows)

        ends = np.round(cumulative_shares * len(rows)).astype(np.int64)
        parts = np.split(rows, ends[:-1])
        for number, part in enumerate(parts):
            split_numbers[part] = number
    return split_numbers


def _draw_groups(
    rng: np.random.Generator, labels: np.ndarray, groups: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Draw the number of the split of each row, (N,), the same for all rows of a group.

    The largest groups come first, and each goes to the split that lacks most rows of its labels.
    """
    group_names, group_of_row = np.unique(groups, return_inverse=True)
    counts = pd.crosstab(group_of_row, labels).to_numpy()  # (groups, labels)
    totals = counts.sum(axis=0)
    missing = shares[:, None] * totals  # (splits, labels)

    # Shuffled first, so that groups of one size come in random order.
    shuffled = rng.permutation(len(group_names))
    sizes = counts[shuffled].sum(axis=1)
    largest_first = shuffled[np.argsort(-sizes, kind="stable")]

    split_of_group = np.empty(len(group_names), dtype=np.int64)
    for group in largest_first:
        need = (missing / totals) @ (counts[group] / totals)
        best = int(np.argmax(need))
        split_of_group[group] = best
        missing[best] -= counts[group]
    return split_of_group[group_of_row]

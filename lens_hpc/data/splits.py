"""Splits: given by the catalogue, or drawn by label and by whole groups with a seed; then shuffled."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lens_hpc import UserError, logs
from lens_hpc.config import Recipe
from lens_hpc.data.catalogue import Catalogue


def draw_order(recipe: Recipe, rows: Catalogue, good: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of each split, shuffled over the whole split."""
    labels, groups = rows.labels[good], None if rows.groups is None else rows.groups[good]
    if rows.splits is None:
        names = draw(labels, groups, recipe.splits, recipe.seed)
        wanted = list(recipe.splits)
        splits_differ(recipe, names)
    else:
        names = rows.splits[good]
        if recipe.validation:
            names = draw_validation(recipe, names, labels, groups)
        wanted = sorted(set(names.tolist()))
    rng = np.random.default_rng([recipe.seed, 1])
    order = {name: rng.permutation(good[names == name]) for name in wanted}
    check_classes(recipe, order, rows.labels)
    return order


def draw_validation(recipe: Recipe, names: np.ndarray, labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The given splits, with some rows of train drawn as val."""
    train = names == "train"
    if "val" in names or not train.any():
        raise UserError(f"validation = {recipe.validation}: the split column must have train, and no val")
    fractions = {"train": 1 - recipe.validation, "val": recipe.validation}
    names = names.astype(object)
    names[train] = draw(labels[train], None if groups is None else groups[train], fractions, recipe.seed)
    return names.astype(str)


def splits_differ(recipe: Recipe, names: np.ndarray) -> None:
    """Warn where whole groups keep a split from its fraction."""
    for name, fraction in recipe.splits.items():
        share = float((names == name).mean())
        if abs(share - fraction) > max(0.05, 0.2 * fraction) and len(names) >= 20:
            logs.logger.warning(
                "split %s has %.0f%% of the rows, not %.0f%%: a group in column %s is too large to fit better",
                name, 100 * share, 100 * fraction, recipe.columns.group,
            )  # fmt: skip


def check_classes(recipe: Recipe, order: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """UserError for an empty split, or a train that lacks a class; a warning where another split lacks one."""
    for name, members in order.items():
        if not len(members):
            raise UserError(
                f"no row is left for the split {name!r}; use fewer splits, larger fractions or smaller groups"
            )
        classes = set(labels[members].tolist())
        absent = [word for label, word in {1: "lenses", 0: "non-lenses"}.items() if label not in classes]
        if recipe.columns.label is None or not absent:
            continue
        if name == "train":
            raise UserError(f"the split train has no {' and no '.join(absent)}: check columns.label and the splits")
        logs.logger.warning("split %s has no %s", name, " and no ".join(absent))


def draw(labels: np.ndarray, groups: np.ndarray | None, fractions: Mapping[str, float], seed: int) -> np.ndarray:
    """Name of the split of each row, (N,), so that each split has its fraction of every label.

    Exact to one row without groups; with groups (strings, (N,)) as near as whole groups allow.
    """
    rng = np.random.default_rng([seed, 0])
    names = np.array(list(fractions))
    shares = np.array(list(fractions.values()))
    if groups is None:
        return names[_draw_rows(rng, labels, shares)]
    return names[_draw_groups(rng, labels, groups, shares)]


def _draw_rows(rng: np.random.Generator, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    split = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(np.int64)[:-1]
        for number, part in enumerate(np.split(rows, ends)):
            split[part] = number
    return split


def _draw_groups(rng: np.random.Generator, labels: np.ndarray, groups: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Largest groups first, each to the split that lacks most rows of its labels."""
    codes, members = np.unique(groups, return_inverse=True)
    counts = pd.crosstab(members, labels).to_numpy()
    totals = counts.sum(axis=0)
    missing = shares[:, None] * totals
    order = rng.permutation(len(codes))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    split_of_group = np.empty(len(codes), dtype=np.int64)
    for group in order:
        need = (missing / totals) @ (counts[group] / totals)
        split_of_group[group] = best = int(np.argmax(need))
        missing[best] -= counts[group]
    return split_of_group[members]

"""Splits: drawn by label and by whole groups, with a seed."""

from collections.abc import Mapping

import numpy as np
import pandas as pd


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
    """Largest groups first, each to the split that lacks its labels most."""
    codes, members = np.unique(groups, return_inverse=True)
    counts = pd.crosstab(members, labels).to_numpy()
    wanted = shares[:, None] * counts.sum(axis=0)
    missing = wanted.copy()
    order = rng.permutation(len(codes))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    split_of_group = np.empty(len(codes), dtype=np.int64)
    for group in order:
        need = (missing / wanted) @ (counts[group] / counts.sum(axis=0))
        split_of_group[group] = best = int(np.argmax(need))
        missing[best] -= counts[group]
    return split_of_group[members]

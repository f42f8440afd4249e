"""A dataset for each fold: the splits train and val together, divided anew in whole groups."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.shards import BLOCK_ROWS, SCHEMA_2_COLUMNS, RowBlock
from lens_hpc.errors import UserError
from lens_hpc.holding import held
from lens_hpc.layout import MANIFEST
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from lens_hpc.packing.splits import draw_splits

COPIED = (*SCHEMA_2_COLUMNS, "targets", "weights")
"""Columns of a row; its hash is made anew."""
LABELS = 0, 1


def write_folds(dataset: Path, folder: Path, count: int, seed: int) -> list[Path]:
    """Write a dataset for each fold that is not there yet, and return their folders.

    Each row of train and val validates in one fold, and trains in all others; other splits are left
    out. Another task that does the same is waited for. Raises UserError where a fold would have no
    lens, or no non-lens.
    """
    folders = [folder / str(fold) for fold in range(count)]
    with held(folder, patient=True):
        absent = [fold for fold in range(count) if not (folders[fold] / MANIFEST).is_file()]
        if absent:
            rows = _TrainAndVal(Dataset(dataset))
            fold_of_row = _draw_folds(rows, count, seed)
            for fold in absent:
                _write_fold(folders[fold], rows, fold_of_row == fold, seed)
    return folders


class _TrainAndVal:
    """The rows of two splits as those of one: first all of train, then all of val."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.train, self.val = dataset["train"], dataset["val"]
        self.count = len(self.train) + len(self.val)

    def take(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Return a column of some rows, (n, ...) in their order."""
        is_val = rows >= len(self.train)
        of_train = self.train.take(column, rows[~is_val])
        of_val = self.val.take(column, rows[is_val] - len(self.train))

        # Texts are as long as the longest of both.
        dtype = np.result_type(of_train, of_val)
        taken = np.empty((len(rows), *of_train.shape[1:]), dtype)
        taken[~is_val] = of_train
        taken[is_val] = of_val
        return taken

    def blocks(self, rows: np.ndarray) -> Iterator[RowBlock]:
        """Yield some rows in their order. Raises UserError for those that are damaged."""
        for start in range(0, len(rows), BLOCK_ROWS):
            chosen = rows[start : start + BLOCK_ROWS]
            is_val = chosen >= len(self.train)
            self.train.check_blocks(chosen[~is_val])
            self.val.check_blocks(chosen[is_val] - len(self.train))
            yield RowBlock(**{name: self.take(name, chosen) for name in COPIED})
            self.train.forget()
            self.val.forget()


def _draw_folds(rows: _TrainAndVal, count: int, seed: int) -> np.ndarray:
    """Draw the fold in which each row validates, (N,)."""
    everything = np.arange(rows.count)
    labels = rows.take("labels", everything)
    grouped = rows.dataset.manifest.grouped
    groups = rows.take("groups", everything) if grouped else None

    shares = {str(fold): 1 / count for fold in range(count)}
    folds = draw_splits(labels, groups, shares, seed).astype(int)
    for fold in range(count):
        if not set(LABELS) <= set(labels[folds == fold].tolist()):
            raise UserError(
                f"folds = {count}: {rows.dataset.path} has too few lenses or non-lenses in train "
                "and val, or too large groups, for each fold to have both; use fewer folds"
            )
    return folds


def _write_fold(folder: Path, rows: _TrainAndVal, is_val: np.ndarray, seed: int) -> None:
    manifest = rows.dataset.manifest
    facts = DatasetFacts(
        **{field.name: getattr(manifest, field.name) for field in fields(DatasetFacts)}
    )

    rng = np.random.default_rng(seed)
    splits = {}
    for name, is_in in (("train", ~is_val), ("val", is_val)):
        chosen = rng.permutation(np.flatnonzero(is_in))
        splits[name] = SplitRows(len(chosen), rows.blocks(chosen))
    write_dataset(folder, facts, splits)

"""The catalogue: which object lies in which files, its label and its features.

Every row is checked before an image is opened. A row that cannot be packed is noted with the
reason; what is wrong with the catalogue as a whole is a UserError.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc.errors import UserError
from lens_hpc.packing.conditions import evaluate_condition, words_in_condition
from lens_hpc.packing.recipe import Columns, PathPattern, Recipe
from lens_hpc.packing.tables import read_table
from lens_hpc.packing.templates import expand_template, match_files, template_fields

MISSING = ("", "nan", "null", "none", "na", "n/a", "--")
LABELS = {
    "0": 0,
    "0.0": 0,
    "false": 0,
    "1": 1,
    "1.0": 1,
    "true": 1,
    **dict.fromkeys(MISSING, -1),
}
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass
class Catalogue:
    """N rows in the order of the catalogue.

    `features` is (N, F) float32 with NaN for missing, `labels` (N,) int8 with -1 for unlabelled,
    `paths` (N, files of a row), relative to the source folder and empty for a stack; `stamps` (N,)
    stands for the time and size of a row's files. `bad` gives the reason for each row that cannot
    be packed.
    """

    ids: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    paths: np.ndarray
    groups: np.ndarray | None
    splits: np.ndarray | None
    stamps: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def reject(self, row: int, reason: str) -> None:
        """Mark a row as bad; the first reason stays."""
        self.bad.setdefault(row, reason)

    def reject_where(self, is_wrong: np.ndarray, reason: str) -> None:
        """Mark the rows where `is_wrong`, (N,) bool, as bad, all for the same reason."""
        for row in np.flatnonzero(is_wrong).tolist():
            self.reject(row, reason)


def read_catalogue(recipe: Recipe, source: Path) -> Catalogue:
    """Read and check the rows that the recipe describes in the folder `source`.

    Raises UserError when the recipe does not fit the catalogue as a whole.
    """
    if not source.is_dir():
        raise UserError(f"source = {source}: there is no such folder")

    patterns = _image_patterns(recipe)
    if recipe.catalogue is None:
        table = match_files(patterns[0][0], source, recipe.bands[0])
    else:
        table = read_table(source / recipe.catalogue)
    _check_columns(recipe, patterns, table)

    columns = recipe.columns
    paths = _expand_paths(patterns, table, source, recipe.bands)
    catalogue = _make_catalogue(columns, table, paths)

    # The first reason stays, so the order of these is that of the messages.
    _check_ids(catalogue)
    _check_groups(catalogue)
    _read_labels(catalogue, table, columns.label)
    for number, name in enumerate(columns.features):
        _read_feature(catalogue, table, number, name)
    _check_splits(catalogue)
    _check_files(catalogue, source)
    return catalogue


def _make_catalogue(columns: Columns, table: pd.DataFrame, paths: np.ndarray) -> Catalogue:
    """Return the rows of a table, their labels and features not yet filled in."""
    count = len(table)
    ids = expand_template(columns.id, table) if "{" in columns.id else table[columns.id]

    groups = None
    if columns.group is not None:
        groups = table[columns.group].to_numpy(dtype=str)

    splits = None
    if columns.split is not None:
        splits = table[columns.split].replace(columns.split_names).to_numpy(dtype=str)

    return Catalogue(
        ids=ids.to_numpy(dtype=str),
        labels=np.full(count, -1, dtype=np.int8),
        features=np.full((count, len(columns.features)), np.nan, dtype=np.float32),
        paths=paths,
        groups=groups,
        splits=splits,
        stamps=np.zeros(count, dtype=np.uint64),
    )


# ---- the recipe and the columns ----


def _image_patterns(recipe: Recipe) -> list[list[str]]:
    """Return, for each file of a row, the alternatives of its path; nothing for a stack."""
    if recipe.images is None:
        return []
    if isinstance(recipe.images, dict):
        return [_alternatives(recipe.images[band]) for band in recipe.bands]

    paths = _alternatives(recipe.images)
    files_of_a_row = len(recipe.bands) if "{band" in paths[0] else 1
    return [paths] * files_of_a_row


def _alternatives(pattern: PathPattern) -> list[str]:
    if isinstance(pattern, str):
        return [pattern]
    return list(pattern)


def _check_columns(recipe: Recipe, patterns: list[list[str]], table: pd.DataFrame) -> None:
    """Raise UserError for columns that are not there, or that give the label away."""
    columns = recipe.columns
    requested = _requested_columns(columns, patterns)

    in_label = words_in_condition(columns.label or "")
    deciding = sorted(set(in_label) & set(columns.features))
    if deciding:
        listed = ", ".join(deciding)
        raise UserError(
            f"columns.features: {listed} decides the label {columns.label!r}; take it out"
        )

    absent = [f"{name!r} ({key})" for key, name in requested if name not in table.columns]
    if absent:
        where = "the fields of images" if recipe.catalogue is None else recipe.catalogue
        listed = ", ".join(absent)
        existing = ", ".join(table.columns)
        raise UserError(
            f"{where}: no column {listed}; it has: {existing}. Name the right columns in the recipe"
        )


def _requested_columns(columns: Columns, patterns: list[list[str]]) -> list[tuple[str, str]]:
    """Return which setting names which column, each pair once."""
    requested = []
    id_columns = template_fields(columns.id) if "{" in columns.id else [columns.id]
    requested += [("columns.id", name) for name in id_columns]

    # A label that is no plain name is a condition, which names missing columns itself.
    if columns.label is not None and columns.label.isidentifier():
        requested.append(("columns.label", columns.label))
    requested += [("columns.features", name) for name in columns.features]
    if columns.group:
        requested.append(("columns.group", columns.group))
    if columns.split:
        requested.append(("columns.split", columns.split))

    for alternatives in patterns:
        for path in alternatives:
            requested += [("images", name) for name in template_fields(path)]
    return list(dict.fromkeys(requested))


# ---- checks of single rows ----


def _check_ids(catalogue: Catalogue) -> None:
    ids = catalogue.ids
    is_empty = ids == ""
    is_repeated = pd.Series(ids).duplicated(keep=False).to_numpy()

    catalogue.reject_where(is_empty, "the id is empty")
    catalogue.reject_where(is_repeated & ~is_empty, "the id stands twice")


def _check_groups(catalogue: Catalogue) -> None:
    if catalogue.groups is not None:
        catalogue.reject_where(catalogue.groups == "", "the group is empty")


def _read_labels(catalogue: Catalogue, table: pd.DataFrame, label: str | None) -> None:
    if label is None:
        return
    if not label.isidentifier() and label not in table.columns:
        catalogue.labels[:] = evaluate_condition(label, table)
        return

    texts = table[label]
    words = texts.str.strip().str.lower()
    codes = words.map(LABELS)
    for row in np.flatnonzero(codes.isna()).tolist():
        text = texts.iloc[row]
        catalogue.reject(row, f"{label} = {text!r} is not 0, 1 or empty")
    catalogue.labels[:] = codes.fillna(-1).to_numpy(dtype=np.int8)


def _read_feature(catalogue: Catalogue, table: pd.DataFrame, number: int, name: str) -> None:
    texts = table[name]
    words = texts.str.strip().str.lower()
    is_missing = words.isin(MISSING).to_numpy()
    numbers = pd.to_numeric(texts.where(~is_missing), errors="coerce")

    # A number that is too large for float32 becomes infinite, and the row is rejected below.
    with np.errstate(over="ignore"):
        catalogue.features[:, number] = numbers.to_numpy(dtype=np.float64)

    is_finite = np.isfinite(catalogue.features[:, number])
    is_wrong = ~is_finite & ~is_missing
    for row in np.flatnonzero(is_wrong).tolist():
        text = texts.iloc[row]
        catalogue.reject(row, f"{name} = {text!r} is not a finite number")


def _check_splits(catalogue: Catalogue) -> None:
    if catalogue.splits is None:
        return

    for row, name in enumerate(catalogue.splits.tolist()):
        if not SPLIT_NAME.fullmatch(name):
            catalogue.reject(row, f"{name!r} is no name of a split")


# ---- the files of the rows ----


def _expand_paths(
    patterns: list[list[str]], table: pd.DataFrame, source: Path, bands: tuple[str, ...]
) -> np.ndarray:
    """Return the paths of each row's files, (N, files of a row)."""
    if not patterns:
        return np.empty((len(table), 0), dtype=object)

    columns = []
    for band, alternatives in zip(bands, patterns, strict=False):
        expanded = [expand_template(pattern, table, band) for pattern in alternatives]
        columns.append(_existing_alternative(expanded, source))
    return np.array(columns, dtype=object).T


def _existing_alternative(alternatives: list[pd.Series], source: Path) -> pd.Series:
    """Return the first alternative that has the first row's file, or else the first of all."""
    for paths in alternatives:
        if (source / paths.iloc[0]).is_file():
            return paths
    return alternatives[0]


def _check_files(catalogue: Catalogue, source: Path) -> None:
    """Check that every file is there and inside the source folder; note its time and size."""
    root = os.path.realpath(source)
    inside_folders: dict[str, bool] = {}
    for row, paths in enumerate(catalogue.paths):
        for path in paths:
            reason, stamp = _check_file(root, path, inside_folders)
            if reason:
                catalogue.reject(row, reason)
                break

            # One number stands for all files of the row.
            earlier = int(catalogue.stamps[row])
            catalogue.stamps[row] = (earlier * 31 + stamp) % (1 << 64)


def _check_file(root: str, path: str, inside_folders: dict[str, bool]) -> tuple[str, int]:
    """Return why a file cannot be used, if so, and its time and size as one number.

    Links are followed, and must not lead out of `root`. `inside_folders` remembers which folders
    are inside. This runs for every file, and a Path would cost more than the check.
    """
    if path.startswith("/") or ".." in path.split("/"):
        return f"{path}: leaves the source folder", 0

    full_path = f"{root}/{path}"
    folder = full_path.rpartition("/")[0]
    try:
        status = os.lstat(full_path)
        is_link = stat.S_ISLNK(status.st_mode)
        if folder not in inside_folders:
            inside_folders[folder] = _is_inside(root, folder)
        if not inside_folders[folder] or (is_link and not _is_inside(root, full_path)):
            return f"{path}: a link leads out of the source folder", 0
        if is_link:
            status = os.stat(full_path)  # noqa: PTH116
    except (OSError, ValueError):
        return f"{path}: there is no such file", 0

    if not stat.S_ISREG(status.st_mode):
        return f"{path}: is not a file", 0
    return "", status.st_mtime_ns * 31 + status.st_size


def _is_inside(root: str, path: str) -> bool:
    real_path = os.path.realpath(path)
    if real_path == root:
        return True
    return real_path.startswith(root + os.sep)

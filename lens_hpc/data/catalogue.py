"""The catalogue: which object lies in which files, its label and its features, checked before an image is opened."""

import csv
import gzip
import itertools
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc import UserError
from lens_hpc.config import Recipe
from lens_hpc.data import recipe as recipes
from lens_hpc.data.recipe import MISSING

LABELS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1} | dict.fromkeys(MISSING, -1)


@dataclass
class Catalogue:
    """N rows in the order of the catalogue.

    `features` is (N, F) float32 with NaN for missing, `labels` (N,) int8 with -1 for unlabelled, `paths` (N, files a
    row), relative to the source folder and empty for a stack; `stamps` (N,) says when and how large the files are.
    `bad` gives the reason for each row that cannot be packed.
    """

    ids: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    paths: np.ndarray
    groups: np.ndarray | None
    splits: np.ndarray | None
    stamps: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)

    def refuse(self, rows: Iterable[int], reasons: Iterable[str]) -> None:
        """Mark rows as bad; the first reason stays."""
        for row, reason in zip(rows, reasons, strict=True):
            self.bad.setdefault(int(row), reason)


def read(recipe: Recipe, source: Path) -> Catalogue:
    """The rows that the recipe describes in `source`. UserError when it does not fit the catalogue as a whole."""
    if not source.is_dir():
        raise UserError(f"source = {source}: there is no such folder")
    patterns = image_patterns(recipe)
    if recipe.catalogue is None:
        table = recipes.match_files(patterns[0][0], source, recipe.bands[0])
    else:
        table = read_table(source / recipe.catalogue)
    _check_columns(recipe, patterns, table)
    columns = recipe.columns
    rows = Catalogue(
        ids=_template_or_column(columns.id, table).to_numpy(dtype=str),
        labels=np.full(len(table), -1, dtype=np.int8),
        features=np.full((len(table), len(columns.features)), np.nan, dtype=np.float32),
        paths=_paths(patterns, table, source, recipe.bands),
        groups=None if columns.group is None else table[columns.group].to_numpy(dtype=str),
        splits=None if columns.split is None else table[columns.split].replace(columns.split_names).to_numpy(dtype=str),
        stamps=np.zeros(len(table), dtype=np.uint64),
    )
    _check_ids(rows)
    _check_groups(rows)
    _read_labels(rows, table, columns.label)
    for number, name in enumerate(columns.features):
        _read_feature(rows, table, number, name)
    _check_splits(rows)
    _check_files(rows, source)
    return rows


def image_patterns(recipe: Recipe) -> list[list[str]]:
    """For each file of a row, the alternatives of its path; empty for a stack."""

    def alternatives(paths: str | tuple[str, ...]) -> list[str]:
        return [paths] if isinstance(paths, str) else list(paths)

    if recipe.images is None:
        return []
    if isinstance(recipe.images, dict):
        return [alternatives(recipe.images[band]) for band in recipe.bands]
    paths = alternatives(recipe.images)
    return [paths] * (len(recipe.bands) if "{band" in paths[0] else 1)


# ---- tables -----------------------------------------------------------------------------------------------------


def read_table(file: Path) -> pd.DataFrame:
    """A catalogue as strings, an empty cell for a missing value: CSV, Parquet, FITS table or VOTable, also gzipped."""
    if not file.is_file():
        raise UserError(f"{file}: no such catalogue; is source= the folder that holds it?")
    kind = file.name.lower().removesuffix(".gz").rpartition(".")[2]
    try:
        if kind == "parquet":
            table = _as_text(pd.read_parquet(file))
        elif kind in {"fits", "fit", "vot", "votable", "xml"}:
            from astropy.table import Table  # takes longer to import than a small survey takes to pack

            table = _as_text(Table.read(file, format="fits" if kind.startswith("fit") else "votable").to_pandas())
        else:
            table = _read_csv(file)
    except UserError:
        raise
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{file}: has no rows") from error
    except Exception as error:  # the readers raise whatever they like on a damaged file
        raise UserError(f"{file}: cannot be read as a catalogue: {type(error).__name__}: {error}") from error
    if table.empty:
        raise UserError(f"{file}: has no rows")
    return table


def _read_csv(file: Path) -> pd.DataFrame:
    """CSV; lines that begin with # are comments, but the last of those before the first row is the header."""
    opener = gzip.open if file.name.endswith(".gz") else open
    with opener(file, "rt", encoding="utf-8-sig") as lines:
        header, skip, hashed = next(lines, ""), 1, False
        while header.startswith("#"):
            hashed, following = True, next(lines, "")
            if not following.startswith("#"):
                break
            header, skip = following, skip + 1
    names = [name.strip() for name in next(csv.reader([header.lstrip("#")]), [])]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError(f"{file}: the column {', '.join(map(repr, twice))} stands twice in the header")
    with opener(file, "rt", encoding="utf-8-sig", newline="") as lines:  # pandas fills and shifts cells in silence
        cells = (row for row in itertools.islice(csv.reader(lines), skip, None) if row and not row[0].startswith("#"))
        for number, row in enumerate(cells, start=1):
            if len(row) != len(names):
                raise UserError(f"{file}: row {number} has {len(row)} cells, the header {len(names)}; mend the row")
    return pd.read_csv(
        file, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig",
        header=None, names=names, skiprows=skip, comment="#" if hashed else None, index_col=False,
    )  # fmt: skip


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    def text(value: object) -> str:
        return value.decode("utf-8").strip() if isinstance(value, bytes) else str(value).strip()

    columns = {str(name): table[name].astype(object).where(table[name].notna(), "").map(text) for name in table.columns}
    return pd.DataFrame(columns, dtype=object)


def _check_columns(recipe: Recipe, patterns: list[list[str]], table: pd.DataFrame) -> None:
    columns = recipe.columns
    wanted: list[tuple[str, str]] = [("columns.id", name) for name in _names(columns.id)]
    if columns.label is not None and columns.label.isidentifier():
        wanted.append(("columns.label", columns.label))
    wanted += [("columns.features", name) for name in columns.features]
    wanted += [
        (key, name) for key, name in (("columns.group", columns.group), ("columns.split", columns.split)) if name
    ]
    wanted += [("images", name) for paths in patterns for path in paths for name in recipes.fields(path)]
    told = set(recipes.words(columns.label or "")) & set(columns.features)
    if told:
        raise UserError(f"columns.features: {', '.join(sorted(told))} decides the label {columns.label!r}; take it out")
    absent = [f"{name!r} ({key})" for key, name in dict.fromkeys(wanted) if name not in table.columns]
    if absent:
        where = "the fields of images" if recipe.catalogue is None else str(recipe.catalogue)
        raise UserError(
            f"{where}: no column {', '.join(absent)}; it has: {', '.join(table.columns)}. "
            "Name the right columns in the recipe"
        )


def _names(template_or_column: str) -> list[str]:
    return recipes.fields(template_or_column) if "{" in template_or_column else [template_or_column]


def _template_or_column(name: str, table: pd.DataFrame) -> pd.Series:
    return recipes.expand(name, table) if "{" in name else table[name]


# ---- checks of single rows --------------------------------------------------------------------------------------


def _check_ids(rows: Catalogue) -> None:
    empty = np.flatnonzero(rows.ids == "")
    rows.refuse(empty, ["the id is empty"] * len(empty))
    twice = np.flatnonzero(pd.Series(rows.ids).duplicated(keep=False).to_numpy() & (rows.ids != ""))
    rows.refuse(twice, ["the id stands twice"] * len(twice))


def _check_groups(rows: Catalogue) -> None:
    if rows.groups is not None:
        empty = np.flatnonzero(rows.groups == "")
        rows.refuse(empty, ["the group is empty"] * len(empty))


def _read_labels(rows: Catalogue, table: pd.DataFrame, label: str | None) -> None:
    if label is None:
        return
    if not label.isidentifier() and label not in table.columns:
        rows.labels[:] = recipes.condition(label, table)
        return
    codes = table[label].str.strip().str.lower().map(LABELS)
    wrong = np.flatnonzero(codes.isna())
    rows.refuse(wrong, [f"{label} = {table[label].iloc[row]!r} is not 0, 1 or empty" for row in wrong])
    rows.labels[:] = codes.fillna(-1).to_numpy(dtype=np.int8)


def _read_feature(rows: Catalogue, table: pd.DataFrame, number: int, name: str) -> None:
    column = table[name]
    missing = column.str.strip().str.lower().isin(MISSING).to_numpy()
    values = pd.to_numeric(column.where(~missing), errors="coerce").to_numpy(dtype=np.float64)
    with np.errstate(over="ignore"):
        rows.features[:, number] = values
    wrong = np.flatnonzero(~np.isfinite(rows.features[:, number]) & ~missing)
    rows.refuse(wrong, [f"{name} = {column.iloc[row]!r} is not a finite number" for row in wrong])


def _check_splits(rows: Catalogue) -> None:
    if rows.splits is None:
        return
    valid = {name: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) for name in set(rows.splits.tolist())}
    wrong = np.flatnonzero([not valid[name] for name in rows.splits.tolist()])
    rows.refuse(wrong, [f"{rows.splits[row]!r} is no name of a split" for row in wrong])


def _paths(patterns: list[list[str]], table: pd.DataFrame, source: Path, bands: tuple[str, ...]) -> np.ndarray:
    """(N, files a row); of several alternatives, the first that has the first row's file."""
    columns = []
    for number, alternatives in enumerate(patterns):
        expanded = [recipes.expand(pattern, table, bands[number]) for pattern in alternatives]
        columns.append(next((paths for paths in expanded if (source / paths.iloc[0]).is_file()), expanded[0]))
    return np.array(columns, dtype=object).T if columns else np.empty((len(table), 0), dtype=object)


def _check_files(rows: Catalogue, source: Path) -> None:
    """Every file is there and inside the source folder, links followed; note its time and size."""
    root = os.path.realpath(source)
    inside_folders: dict[str, bool] = {}
    for row, paths in enumerate(rows.paths):
        for path in paths:
            reason, stamp = _check_file(root, path, inside_folders)
            if reason:
                rows.refuse([row], [reason])
                break
            rows.stamps[row] = (int(rows.stamps[row]) * 31 + stamp) % (1 << 64)


def _check_file(root: str, path: str, inside_folders: dict[str, bool]) -> tuple[str, int]:
    """(why the file cannot be used, or nothing; its time and size as one number)."""
    if path.startswith("/") or ".." in path.split("/"):
        return f"{path}: leaves the source folder", 0
    full = f"{root}/{path}"
    try:
        status = os.lstat(full)
        folder = full.rpartition("/")[0]  # this runs for every file: a Path would cost more than the check
        if folder not in inside_folders:
            inside_folders[folder] = _is_inside(root, folder)
        if not inside_folders[folder] or (stat.S_ISLNK(status.st_mode) and not _is_inside(root, full)):
            return f"{path}: a link leads out of the source folder", 0
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(full)  # noqa: PTH116
    except (OSError, ValueError):
        return f"{path}: there is no such file", 0
    if not stat.S_ISREG(status.st_mode):
        return f"{path}: is not a file", 0
    return "", status.st_mtime_ns * 31 + status.st_size


def _is_inside(root: str, path: str) -> bool:
    real = os.path.realpath(path)
    return real == root or real.startswith(root + os.sep)

"""The catalogue: which object lies in which file, its label and its features, checked before anything is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter

import numpy as np
import pandas as pd

from lens_hpc import UserError
from lens_hpc.config import Recipe

MOST_ROWS_LISTED = 20
MISSING = {"", "nan", "null", "none", "na", "n/a"}


@dataclass(frozen=True)
class Catalogue:
    """Rows in the order of the file.

    `features` is (N, F) float32 with NaN for missing, `labels` (N,) int8 with -1 for unlabelled; the others are (N,)
    strings. `paths` are relative to the source folder.
    """

    ids: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    paths: np.ndarray
    groups: np.ndarray | None
    splits: np.ndarray | None


def read(recipe: Recipe, source: Path) -> Catalogue:
    """Read the recipe's catalogue in `source`. UserError names the file, the lines and the column at fault."""
    file = source / recipe.catalogue
    table = _read_csv(file)
    columns = recipe.columns
    wanted = {"columns.id": columns.id, "columns.label": columns.label}
    wanted |= {"columns.group": columns.group, "columns.split": columns.split}
    wanted |= {f"columns.features[{i}]": name for i, name in enumerate(columns.features)}
    wanted |= {f"images {{{name}}}": name for name in _pattern_fields(recipe.images)}
    absent = [f"{name!r} ({key})" for key, name in wanted.items() if name is not None and name not in table.columns]
    if absent:
        raise UserError(
            f"{file}: no column {', '.join(absent)}; it has: {', '.join(table.columns)}. "
            "Name the right columns in the recipe"
        )
    ids = table[columns.id].to_numpy(dtype=str)
    _refuse(file, "empty ids", ids, ids == "")
    _refuse(file, "ids that stand twice", ids, table[columns.id].duplicated(keep=False).to_numpy())
    return Catalogue(
        ids=ids,
        labels=_labels(file, ids, table, columns.label),
        features=np.stack([_numbers(file, ids, table[name]) for name in columns.features], axis=1)
        if columns.features
        else np.empty((len(ids), 0), dtype=np.float32),
        paths=_paths(file, ids, table, recipe.images, source),
        groups=None if columns.group is None else table[columns.group].to_numpy(dtype=str),
        splits=None if columns.split is None else _splits(file, ids, table[columns.split]),
    )


def _read_csv(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, skipinitialspace=True)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such catalogue; is source= the folder that holds it?") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as CSV: {error}") from error
    if table.empty:
        raise UserError(f"{file}: has no rows")
    return table


def _labels(file: Path, ids: np.ndarray, table: pd.DataFrame, column: str | None) -> np.ndarray:
    if column is None:
        return np.full(len(ids), -1, dtype=np.int8)
    text = table[column].str.strip().str.lower()
    codes = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1} | dict.fromkeys(MISSING, -1)
    labels = text.map(codes)
    _refuse(file, f"{column} values that are not 0, 1 or empty", ids, labels.isna().to_numpy(), table[column])
    return labels.to_numpy(dtype=np.int8)


def _numbers(file: Path, ids: np.ndarray, column: pd.Series) -> np.ndarray:
    missing = column.str.strip().str.lower().isin(MISSING)
    numbers = pd.to_numeric(column.where(~missing), errors="coerce").to_numpy(dtype=np.float64)
    with np.errstate(over="ignore"):
        numbers = numbers.astype(np.float32)
    _refuse(
        file,
        f"{column.name} values that are not finite numbers",
        ids,
        ~np.isfinite(numbers) & ~missing.to_numpy(),
        column,
    )
    return numbers


def _splits(file: Path, ids: np.ndarray, column: pd.Series) -> np.ndarray:
    names = column.str.strip().to_numpy(dtype=str)
    valid = np.array([name.replace("_", "").replace("-", "").isalnum() for name in names])
    _refuse(file, f"{column.name} values that are no names of splits", ids, ~valid, column)
    return names


def _paths(file: Path, ids: np.ndarray, table: pd.DataFrame, pattern: str, source: Path) -> np.ndarray:
    parts = [(literal, name) for literal, name, _, _ in Formatter().parse(pattern)]
    paths = pd.Series("", index=table.index)
    for literal, name in parts:
        paths = paths + literal + (table[name] if name is not None else "")
    outside = np.array([PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts for path in paths])
    _refuse(file, "image paths that leave the source folder", ids, outside, paths)
    absent = np.array([not (source / path).is_file() for path in paths])
    _refuse(file, f"no image file in {source}", ids, absent, paths)
    return paths.to_numpy(dtype=str)


def _pattern_fields(pattern: str) -> list[str]:
    try:
        return [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise UserError(f"images = {pattern}: is not a path pattern: {error}; write {{column}} for a value") from error


def _refuse(file: Path, what: str, ids: np.ndarray, bad: np.ndarray, values: Iterable[str] | None = None) -> None:
    """UserError that lists the bad rows, if there are any."""
    rows = np.flatnonzero(bad)
    if not len(rows):
        return
    shown = list(ids if values is None else values)
    lines = [f"  line {row + 2}, id {ids[row]}: {shown[row]!r}" for row in rows[:MOST_ROWS_LISTED]]
    more = [f"  and {len(rows) - MOST_ROWS_LISTED:,} more"] if len(rows) > MOST_ROWS_LISTED else []
    raise UserError(f"{file}: {len(rows):,} of {len(ids):,} rows have {what}:\n" + "\n".join(lines + more))

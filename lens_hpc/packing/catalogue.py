"""The catalogue: which object lies in which files, its label and its features.

Every row is checked before an image is opened. A row that cannot be packed is noted with the
reason; what is wrong with the catalogue as a whole is a UserError.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue_files import (
    FileCheck,
    check_some_files_exist,
    expand_paths,
    image_patterns,
)
from lens_hpc.packing.catalogue_tables import read_tables
from lens_hpc.packing.cells import (
    MISSING,
    CatalogueTable,
    all_differ,
    fixed_strings,
)
from lens_hpc.packing.conditions import evaluate_condition
from lens_hpc.packing.joins import Choice, choose_rows, tell_choice
from lens_hpc.packing.missing import remedy, warn_of_suspects
from lens_hpc.packing.mosaic_rows import PlacedRows, place_rows
from lens_hpc.packing.parts import expand_parts
from lens_hpc.packing.recipe import Columns, Recipe
from lens_hpc.packing.templates import expand_template

LABELS = {
    "0": 0,
    "0.0": 0,
    "false": 0,
    "1": 1,
    "1.0": 1,
    "true": 1,
    **dict.fromkeys(MISSING, -1),
}
NO_LABEL = -2
MOST_CLASSES = 20
"""Different words of a column that may be classes, one of which is that of lenses."""
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
LONGEST_SPLIT = 100
LONGEST_ID = 500
"""Characters of an id or a group, whose longest decides how much memory all of them take."""


@dataclass
class Catalogue:
    """N rows in the order of the catalogue.

    `features` is (N, F) float32 with NaN for missing, `labels` (N,) int8 with -1 for unlabelled,
    `paths` (N, files of a row), relative to the source folder and empty for a stack; `stamps` (N,)
    stands for the time and size of a row's files. `bad` gives the reason for each row that cannot
    be packed. `positions` (N, 2), in degrees, are there where the images are cut from mosaics.
    `targets` (N,) float32 are soft labels with NaN for none, `weights` (N,) float32 are
    1 where the recipe names none, `kept` is the table of columns.keep; `table_rows` (N,) are the
    rows' numbers among the `table_length` rows of the table. `hdus` and `keys`, (N, bands), are
    there where columns say which part of a file has a band.
    """

    ids: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    paths: np.ndarray
    groups: np.ndarray | None
    splits: np.ndarray | None
    stamps: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)
    hdus: np.ndarray | None = None
    keys: np.ndarray | None = None
    positions: np.ndarray | None = None
    targets: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)
    kept: pd.DataFrame = field(init=False)
    table_rows: np.ndarray = field(init=False)
    table_length: int = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.ids)
        self.targets = np.full(count, np.nan, dtype=np.float32)
        self.weights = np.ones(count, dtype=np.float32)
        self.kept = pd.DataFrame(index=range(count))
        self.table_rows = np.arange(count)
        self.table_length = count

    def __len__(self) -> int:
        return len(self.ids)

    def reject(self, row: int, reason: str) -> None:
        """Mark a row as bad; the first reason stays."""
        self.bad.setdefault(row, reason)

    def reject_where(self, is_wrong: np.ndarray, reason: str) -> None:
        """Mark the rows where `is_wrong`, (N,) bool, as bad, all for the same reason."""
        for row in np.flatnonzero(is_wrong).tolist():
            self.reject(row, reason)

    def place(self, rows: PlacedRows) -> None:
        """Take over where the rows lie on mosaics, and mark those as bad that have no place."""
        self.positions = rows.positions
        self.paths = rows.paths
        for row, reason in rows.bad.items():
            self.reject(row, reason)


def read_catalogue(recipe: Recipe, source: Path) -> Catalogue:
    """Read and check the rows that the recipe describes in the folder `source`.

    Raises UserError when the recipe does not fit the catalogue as a whole.
    """
    if not source.is_dir():
        raise UserError(f"source = {source}: there is no such folder")

    table = read_tables(recipe, source)
    choice = choose_rows(table, recipe.where)
    tell_choice(recipe.where, len(choice.rows), choice.left_out, choice.unknown)

    # The paths come first: what is wrong with their pattern concerns all rows.
    paths = expand_paths(recipe, image_patterns(recipe), choice.table, source)
    catalogue = read_rows(recipe.columns, choice)
    catalogue.paths = paths
    catalogue.table_rows = choice.rows
    catalogue.table_length = len(table)
    catalogue.hdus = expand_parts(recipe.hdu, choice.table, recipe.bands)
    catalogue.keys = expand_parts(recipe.key, choice.table, recipe.bands)

    _read_kept(catalogue, choice.table, recipe.columns)
    warn_of_features(recipe.columns, choice.table, catalogue.features)
    if recipe.mosaics is not None:
        catalogue.place(place_rows(recipe, choice.table, source))
    _check_files(catalogue, source, recipe.follow_links)
    return catalogue


def read_rows(columns: Columns, choice: Choice) -> Catalogue:
    """Read and check the cells of rows: all that the rows themselves tell, without any file."""
    table = choice.table
    catalogue = _make_catalogue(columns, table)

    # The first reason stays, so the order of these is that of the messages.
    for row, reason in choice.unasked.items():
        catalogue.reject(row, reason)
    _check_ids(catalogue)
    _check_groups(catalogue)
    _read_labels(catalogue, table, columns.label)
    _read_columns_of_numbers(catalogue, table, columns)
    _read_splits(catalogue, table, columns)
    return catalogue


def warn_of_features(columns: Columns, table: CatalogueTable, features: np.ndarray) -> None:
    """Warn of what seems to mean "not measured" in the features (N, F) of a table."""
    for number, name in enumerate(columns.features):
        warn_of_suspects(table, name, features[:, number])


def _make_catalogue(columns: Columns, table: CatalogueTable) -> Catalogue:
    """Return the rows of a table, with what is text in them."""
    count = len(table)
    if "{" in columns.id:
        ids = fixed_strings(
            pa.array(expand_template(columns.id, table), pa.large_string()), LONGEST_ID
        )
    else:
        ids = fixed_strings(table.texts(columns.id), LONGEST_ID)

    groups = None
    if columns.group is not None:
        groups = fixed_strings(table.texts(columns.group), LONGEST_ID)

    return Catalogue(
        ids=ids,
        labels=np.full(count, -1, dtype=np.int8),
        features=np.full((count, len(columns.features)), np.nan, dtype=np.float32),
        paths=np.empty((count, 0), dtype=object),
        groups=groups,
        splits=None,
        stamps=np.zeros(count, dtype=np.uint64),
    )


def _read_kept(catalogue: Catalogue, table: CatalogueTable, columns: Columns) -> None:
    kept = pa.table({name: table.typed(name) for name in columns.keep})
    if columns.keep:
        catalogue.kept = kept.to_pandas(types_mapper=pd.ArrowDtype)


# ---- checks of single rows ----


def _check_ids(catalogue: Catalogue) -> None:
    ids = catalogue.ids
    _reject_long(catalogue, ids, "id")
    is_empty = ids == ""
    if not is_empty.any() and all_differ(ids):
        return

    is_repeated = pd.Series(ids).duplicated(keep=False).to_numpy()
    catalogue.reject_where(is_empty, "the id is empty")
    catalogue.reject_where(is_repeated & ~is_empty, "the id stands twice")


def _reject_long(catalogue: Catalogue, texts: np.ndarray, name: str) -> None:
    if texts.dtype.itemsize > np.dtype(f"U{LONGEST_ID}").itemsize:
        is_long = np.char.str_len(texts) > LONGEST_ID
        catalogue.reject_where(is_long, f"the {name} is longer than {LONGEST_ID:,} characters")


def _check_groups(catalogue: Catalogue) -> None:
    if catalogue.groups is not None:
        catalogue.reject_where(catalogue.groups == "", "the group is empty")
        _reject_long(catalogue, catalogue.groups, "group")


def _read_labels(catalogue: Catalogue, table: CatalogueTable, label: str | None) -> None:
    if label is None:
        return
    if label not in table:
        verdict = evaluate_condition(label, table, "columns.label")
        catalogue.labels[:] = verdict.truth
        for row, reason in verdict.wrong.items():
            catalogue.reject(row, reason)
        return

    # Few texts for many rows.
    codes, texts = table.coded(label)
    meanings = [LABELS.get(text.lower(), NO_LABEL) for text in texts]
    labels = np.array([*meanings, -1], dtype=np.int8)[codes]
    remedy = _condition_on(label, texts)
    for row in np.flatnonzero(labels == NO_LABEL).tolist():
        text = table.text(label, row)
        catalogue.reject(row, f"{label} = {text!r} is not 0, 1 or empty{remedy}")
    catalogue.labels[:] = np.maximum(labels, -1)


def _condition_on(label: str, texts: Sequence[str]) -> str:
    """Say which condition makes labels of words, where a column has few of them."""
    words = [text for text in texts if text]
    is_few = 0 < len(words) <= MOST_CLASSES
    if not is_few or any(text.lower() in LABELS for text in words):
        return ""
    lens = next((word for word in words if word.lower().startswith("lens")), words[0])
    column = label if label.isidentifier() else f"`{label}`"
    return f"; a condition makes labels of words, such as columns.label: {column} == {lens!r}"


def _read_columns_of_numbers(catalogue: Catalogue, table: CatalogueTable, columns: Columns) -> None:
    for number, name in enumerate(columns.features):
        catalogue.features[:, number] = _read_numbers(catalogue, table, name)

    if columns.target is not None:
        targets = _read_numbers(catalogue, table, columns.target)
        is_outside = (targets < 0) | (targets > 1)
        catalogue.reject_where(is_outside, f"{columns.target} is not from 0 to 1")
        catalogue.targets[:] = targets

    if columns.weight is not None:
        weights = _read_numbers(catalogue, table, columns.weight)
        catalogue.reject_where(weights < 0, f"{columns.weight} is negative")
        catalogue.weights[:] = np.where(np.isnan(weights), 1, weights)


def _read_numbers(catalogue: Catalogue, table: CatalogueTable, name: str) -> np.ndarray:
    """Return a column as float32, (N,), NaN where missing; rows with anything else are bad."""
    numbers, wrong = table.numbers(name)
    filled = pc.fill_null(numbers.cast(pa.float64(), safe=False), np.nan)

    # A number that is too large for float32 becomes infinite.
    with np.errstate(over="ignore"):
        values = filled.to_numpy(zero_copy_only=False).astype(np.float32)

    infinite = np.flatnonzero(np.isinf(values))
    for row in [*wrong.tolist(), *infinite.tolist()]:
        text = table.text(name, row)
        catalogue.reject(
            row,
            f"{name} = {text!r} is not a finite number; if it stands for no value: "
            f"{remedy(name, text)}",
        )
    return values


def _read_splits(catalogue: Catalogue, table: CatalogueTable, columns: Columns) -> None:
    if columns.split is None:
        return

    codes, values = table.coded(columns.split)
    values.append("")
    named = [columns.split_names.get(value, value) for value in values]
    names = np.array([name[: LONGEST_SPLIT + 1] for name in named], dtype=str)
    catalogue.splits = names[codes]

    is_name = np.array([bool(SPLIT_NAME.fullmatch(name)) for name in names])
    for row in np.flatnonzero(~is_name[codes]).tolist():
        name = str(catalogue.splits[row])
        catalogue.reject(row, f"{name!r} is no name of a split")


def _check_files(catalogue: Catalogue, source: Path, follow_links: bool) -> None:
    """Check that every file is there and inside the source folder; note its time and size."""
    if not catalogue.paths.size:
        return

    files = FileCheck(source, follow_links)
    for row, paths in enumerate(catalogue.paths):
        for path in paths:
            reason, stamp = files.check(path)
            if reason:
                catalogue.reject(row, reason)
                break

            # One number stands for all files of the row.
            earlier = int(catalogue.stamps[row])
            catalogue.stamps[row] = (earlier * 31 + stamp) % (1 << 64)
    check_some_files_exist(catalogue.ids, catalogue.paths, catalogue.bad, source)

"""The columns of a catalogue that a recipe names: all rows at once, or some at a time."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lens_hpc.errors import UserError
from lens_hpc.packing.catalogue_files import image_patterns
from lens_hpc.packing.cells import CatalogueTable, from_frame
from lens_hpc.packing.conditions import words_in_condition
from lens_hpc.packing.joins import join_tables
from lens_hpc.packing.missing import mark_missing
from lens_hpc.packing.parts import part_fields
from lens_hpc.packing.recipe import Join, Recipe
from lens_hpc.packing.tables import read_table, stream_table
from lens_hpc.packing.templates import check_template, template_fields
from lens_hpc.packing.uncatalogued import uncatalogued_rows

NEVER_MISSING = ("columns.id", "images", "hdu", "key")
ROW = "row"


def read_tables(recipe: Recipe, source: Path) -> CatalogueTable:
    """Return the table of all rows, with the columns that the recipe names.

    Raises UserError when the recipe does not fit the catalogue.
    """
    _check_templates(recipe)
    names = _named_columns(recipe)
    if recipe.catalogue is None:
        table = from_frame(uncatalogued_rows(recipe, image_patterns(recipe), source))
    else:
        table = read_table(source / recipe.catalogue, names, recipe.table)
    table = join_tables(table, joins_of(recipe), source, names)
    return _finish(recipe, table, first_row=0)


def stream_tables(recipe: Recipe, source: Path, most_rows: int) -> Iterator[CatalogueTable]:
    """Yield the rows of `read_tables` in tables of `most_rows`, the last one with what is left.

    A catalogue in Parquet without joins is never held whole.
    """
    if recipe.catalogue is None or joins_of(recipe):
        table = read_tables(recipe, source)
        for start in range(0, len(table), most_rows):
            yield table.slice(start, most_rows)
        return

    _check_templates(recipe)
    names = _named_columns(recipe)
    first_row = 0
    for table in stream_table(source / recipe.catalogue, names, recipe.table, most_rows):
        yield _finish(recipe, table, first_row)
        first_row += len(table)


def joins_of(recipe: Recipe) -> list[Join]:
    """Return the further catalogues of a recipe."""
    return [recipe.join] if isinstance(recipe.join, Join) else list(recipe.join)


def _finish(recipe: Recipe, table: CatalogueTable, first_row: int) -> CatalogueTable:
    """Return a table as the recipe understands it: with numbers of rows, and what is missing."""
    if ROW in _named_columns(recipe) and ROW not in table:
        numbers = pa.array(np.arange(first_row, first_row + len(table)))
        table = CatalogueTable({**table.columns, ROW: numbers}, table.existing)
    requested = _requested_columns(recipe)
    _check_columns(recipe, requested, table)

    # An id of 99 is an id, where a magnitude of 99 is none.
    spared = [name for setting, name in requested if setting in NEVER_MISSING]
    return mark_missing(table, recipe.columns.missing, spared)


# ---- the recipe and the columns ----


def _check_templates(recipe: Recipe) -> None:
    """Raise UserError with the setting that should be a template, and is none."""
    texts: list[tuple[str, object]] = [("columns.id", recipe.columns.id)]
    patterns = image_patterns(recipe)
    texts += [("images", path) for alternatives in patterns for path in alternatives]
    for setting in ("hdu", "key"):
        named = getattr(recipe, setting)
        values = named.values() if isinstance(named, dict) else [named]
        texts += [(setting, value) for value in values]

    for setting, text in texts:
        # What is no path is a template only where it has a brace.
        if not isinstance(text, str) or (setting != "images" and "{" not in text):
            continue
        try:
            check_template(text, is_pattern=setting == "images" and recipe.catalogue is None)
        except UserError as error:
            raise UserError(f"{setting}: {error}") from error


def _named_columns(recipe: Recipe) -> set[str]:
    """Return the names of all columns that the recipe may need."""
    names = {name for _, name in _requested_columns(recipe)}
    names |= {join.key for join in joins_of(recipe)}
    for condition in (recipe.columns.label, recipe.where):
        if condition is not None:
            names |= {condition, *words_in_condition(condition)}
    return names


def _requested_columns(recipe: Recipe) -> list[tuple[str, str]]:
    """Return which setting names which column, each pair once."""
    columns = recipe.columns
    requested = []
    id_columns = template_fields(columns.id) if "{" in columns.id else [columns.id]
    requested += [("columns.id", name) for name in id_columns]

    # A label that is no plain name is a condition, which names missing columns itself.
    if columns.label is not None and columns.label.isidentifier():
        requested.append(("columns.label", columns.label))
    for setting in ("features", "keep"):
        requested += [(f"columns.{setting}", name) for name in getattr(columns, setting)]
    for setting in ("target", "weight", "group", "split"):
        name = getattr(columns, setting)
        if name is not None:
            requested.append((f"columns.{setting}", name))
    if isinstance(columns.missing, dict):
        requested += [("columns.missing", name) for name in columns.missing]

    for alternatives in image_patterns(recipe):
        for path in alternatives:
            requested += [("images", name) for name in template_fields(path)]
    if recipe.mosaics is not None:
        requested += recipe.mosaics.named_columns()
    requested += [("hdu", name) for name in part_fields(recipe.hdu)]
    requested += [("key", name) for name in part_fields(recipe.key)]
    return list(dict.fromkeys(requested))


def _check_columns(
    recipe: Recipe, requested: Collection[tuple[str, str]], table: CatalogueTable
) -> None:
    """Raise UserError for columns that are not there, or that give the label away."""
    columns = recipe.columns
    in_label = words_in_condition(columns.label or "")
    deciding = sorted(set(in_label) & set(columns.features))
    if deciding:
        listed = ", ".join(deciding)
        raise UserError(
            f"columns.features: {listed} decides the label {columns.label!r}; take it out"
        )

    absent = [f"{name!r} ({key})" for key, name in requested if name not in table]
    if absent:
        where = "the fields of images" if recipe.catalogue is None else recipe.catalogue
        listed = ", ".join(absent)
        raise UserError(
            f"{where}: no column {listed}; it has: {table.names_shown()}. Name the right columns "
            f"in the recipe{_unless_unlabelled(columns.label, absent)}"
        )


def _unless_unlabelled(label: str | None, absent: Collection[str]) -> str:
    """Say what a recipe says of rows without labels, where it may be silent about the label."""
    is_absent = any(text.endswith("(columns.label)") for text in absent)
    return "; if there are no labels, say columns.label: null" if label and is_absent else ""

"""Rows without a catalogue: the image files that are found, or the cutouts of a stack."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import from_frame
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.stacks import stack_table
from lens_hpc.packing.templates import expand_template, files_below, match_files


def uncatalogued_rows(recipe: Recipe, patterns: list[list[str]], source: Path) -> pd.DataFrame:
    """Return a row of texts for each object that has a file, or a cutout in the stack.

    `patterns` holds the alternatives of the path of each file of a row. An object that lacks some
    of its files is a row, too: a later check says which one is not there. The rows come in the
    order of the first band's paths; what the first band lacks follows in that of the next.
    """
    if recipe.stack is not None:
        return stack_table(recipe, source)

    paths = files_below(source, recipe.follow_links)
    found = []
    failures = []
    for band, alternatives in zip(recipe.bands, patterns, strict=False):
        for pattern in alternatives:
            try:
                fields = match_files(pattern, source, band, paths)
            except UserError as error:
                failures.append(error)
                continue
            found.append(_Found(fields, _paths(pattern, fields, band)))
    if not found:
        raise failures[0]
    return _unite(found)


def _paths(pattern: str, fields: pd.DataFrame, band: str) -> np.ndarray:
    return expand_template(pattern, from_frame(fields), band, is_pattern=True).to_numpy()


class _Found(NamedTuple):
    """The files that match one pattern."""

    fields: pd.DataFrame
    paths: np.ndarray


def _unite(found: list[_Found]) -> pd.DataFrame:
    """Return the objects that any pattern found, each once.

    A pattern with other fields than the first cannot tell which object a file is of. Nor can one
    that matches the files of another band, as {id}.fits does those of {id}_r.fits: such files are
    left to the pattern that came before.
    """
    rows, paths = found[0]
    names = list(rows.columns)
    claimed = set(paths)
    for fields, paths in found[1:]:
        if not set(names) <= set(fields.columns):
            continue
        others = fields[names]
        if others.equals(rows):
            continue

        is_known = pd.MultiIndex.from_frame(others).isin(pd.MultiIndex.from_frame(rows))
        is_claimed = np.array([path in claimed for path in paths])
        new_rows = others[~is_known & ~is_claimed].drop_duplicates()
        rows = pd.concat([rows, new_rows], ignore_index=True)
        claimed.update(paths)
    return rows

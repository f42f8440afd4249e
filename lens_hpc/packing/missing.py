"""Words and numbers that stand for no measurement: those that the recipe names, and suspects."""

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.logs import logger
from lens_hpc.packing.cells import CatalogueTable

FEWEST_OTHERS = 10
FAR_OUTSIDE = 3
"""How far a suspect lies outside the others, in the width that these have."""


def mark_missing(
    table: CatalogueTable,
    missing: Collection[str] | Mapping[str, Collection[str]],
    spared: Collection[str],
) -> CatalogueTable:
    """Return a table in which the cells that hold one of the words are missing.

    Words that are numbers are compared as numbers. Without a mapping, the words are those of all
    columns but the `spared`.
    """
    words_of: Mapping[str, Collection[str]]
    if isinstance(missing, Mapping):
        words_of = missing
    else:
        words_of = {name: missing for name in table.columns if name not in spared}

    columns = dict(table.columns)
    for name, words in words_of.items():
        if name in columns and words:
            columns[name] = _mark_column(table, name, words)
    return CatalogueTable(columns, table.existing)


def _mark_column(table: CatalogueTable, name: str, words: Collection[str]) -> pa.Array:
    column = table.columns[name]
    numbers, _ = table.numbers(name)
    if pa.types.is_float32(column.type):
        numbers = numbers.cast(pa.float32())

    lowered = pa.array([word.strip().lower() for word in words], pa.large_string())
    is_missing = np.zeros(len(column), dtype=bool)
    if pa.types.is_large_string(column.type):
        is_missing |= np.asarray(pc.is_in(pc.utf8_lower(column), lowered))
    for word in words:
        number = _number(word, numbers.type)
        if number is not None:
            is_missing |= np.asarray(pc.fill_null(pc.equal(numbers, number), False))
    return pc.if_else(pa.array(is_missing), pa.scalar(None, column.type), column)


def _number(word: str, kind: pa.DataType) -> pa.Scalar | None:
    """Return a word as a number of the column's type, or None where it is none of those."""
    try:
        number = float(word)
    except ValueError:
        return None
    if not pa.types.is_integer(kind):
        return pa.scalar(number).cast(kind)

    try:
        whole = int(word)  # a float has not all digits of a large one
    except ValueError:
        if not number.is_integer():
            return None
        whole = int(number)
    return pa.scalar(whole, pa.int64()) if -(2**63) <= whole < 2**63 else None


def remedy(name: str, word: str) -> str:
    """Return the setting by which a word is no value of a column."""
    return f"columns.missing={{{_in_yaml(name)}: [{_in_yaml(word)}]}}"


def _in_yaml(text: str) -> str:
    if not text.isprintable():
        return json.dumps(text)
    return "'" + text.replace("'", "''") + "'"


class Suspect(NamedTuple):
    """A value that seems to stand for no measurement, as -99 does."""

    value: float
    rows: int
    """Rows that have it."""
    low: float
    """The others lie from here ..."""
    high: float
    """... to here: 98 % of them, or all where a single row has the suspect."""


def find_suspects(values: np.ndarray) -> list[Suspect]:
    """Return what seems to mean "not measured" among the values (N,) of a feature, NaN left out.

    It is the least or the largest value, where it lies far outside of the others: of 98 % of them
    where several rows have it, else of all. Behind a suspect there may be another.
    """
    finite = values[np.isfinite(values)]
    suspects: list[Suspect] = []
    while found := _suspect_extremes(finite):
        suspects += found
        finite = finite[~np.isin(finite, [suspect.value for suspect in found])]
    return suspects


def _suspect_extremes(values: np.ndarray) -> list[Suspect]:
    if not len(values):
        return []
    least, largest = float(values.min()), float(values.max())
    inner = values[(values > least) & (values < largest)]
    found = []
    for extreme in (least, largest):
        others = values[values != extreme]
        rows = len(values) - len(others)
        # The other extreme may be one, too, which makes this one look near.
        suspect = _judge(extreme, rows, others) or _judge(extreme, rows, inner)
        if suspect:
            found.append(suspect)
    return found


def _judge(extreme: float, rows: int, others: np.ndarray) -> Suspect | None:
    """Return an extreme value that so many rows have, if it lies far outside of the others."""
    if len(others) < FEWEST_OTHERS:
        return None
    # A long tail has single values far outside of most, but not of all.
    low, high = np.percentile(others, [1, 99] if rows > 1 else [0, 100]).tolist()
    distance = max(low - extreme, extreme - high)
    is_far = high > low and distance > FAR_OUTSIDE * (high - low)
    return Suspect(extreme, rows, low, high) if is_far else None


def warn_of_suspects(table: CatalogueTable, name: str, values: np.ndarray) -> None:
    """Warn of what seems to mean "not measured" in a feature.

    `values`, (N,) float32, are those of the table's column `name`.
    """
    for suspect in find_suspects(values):
        word = table.text(name, int(np.flatnonzero(values == suspect.value)[0]))
        rows = "1 row has" if suspect.rows == 1 else f"{suspect.rows:,} rows have"
        logger.warning(
            "feature %s: %s %s, far from the others (%g to %g); if it stands for no measurement, "
            "say %s",
            *(name, rows, word, suspect.low, suspect.high, remedy(name, word)),
        )

"""Words and numbers that stand for no measurement: those that the recipe names, and suspects."""

import json
from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.logs import logger
from lens_hpc.packing.cells import CatalogueTable

FEWEST_TO_SUSPECT = 2
FEWEST_OTHERS = 10
FAR_OUTSIDE = 3
"""How far a suspect lies outside the others, in the width that 98 % of them have."""


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


def warn_of_suspects(table: CatalogueTable, name: str, values: np.ndarray) -> None:
    """Warn where the least or the largest value of a feature seems to mean: not measured.

    `values`, (N,) float32, are those of the table's column `name`.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return

    for suspect in (finite.min(), finite.max()):
        others = finite[finite != suspect]
        count = len(finite) - len(others)
        if count < FEWEST_TO_SUSPECT or len(others) < FEWEST_OTHERS:
            continue

        low, high = np.percentile(others, [1, 99])
        distance = max(low - suspect, suspect - high)
        if high > low and distance > FAR_OUTSIDE * (high - low):
            word = table.text(name, int(np.flatnonzero(values == suspect)[0]))
            logger.warning(
                "feature %s: %d rows have %s, far from the others (%g to %g); if it stands for no "
                "measurement, say %s",
                *(name, count, word, low, high, remedy(name, word)),
            )

"""Rows and columns of several catalogues: a join by key, and the rows that a condition chooses."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.conditions import evaluate_condition
from lens_hpc.packing.recipe import Join
from lens_hpc.packing.tables import read_table

KEYS_SHOWN = 3
DIGITS = 38
LARGEST_IN_FLOAT32 = 2**24
LARGEST_IN_FLOAT64 = 2**53


def join_tables(
    table: CatalogueTable, joins: Sequence[Join], source: Path, names: Collection[str]
) -> CatalogueTable:
    """Add to a table the columns `names` of further catalogues, row by row by their keys.

    A row without a partner has missing values. Raises UserError where a key stands twice in a
    further catalogue, where no row has a partner, or where two catalogues have a column.
    """
    for join in joins:
        file = source / join.catalogue
        key_there = join.key_there or join.key
        added = read_table(file, {*names, key_there}, join.table)
        for where, key, its_table in (("the rows", join.key, table), (file, key_there, added)):
            if key not in its_table:
                existing = its_table.names_shown()
                raise UserError(f"join: no column {key!r} in {where}, which have: {existing}")
        table = _join(table, join.key, added, key_there, file)
    return table


def _join(
    table: CatalogueTable, key: str, added: CatalogueTable, key_there: str, file: Path
) -> CatalogueTable:
    new_columns = {name: cells for name, cells in added.columns.items() if name != key_there}
    doubled = sorted(new_columns.keys() & table.columns.keys())
    if doubled:
        raise UserError(
            f"{file}: the column {doubled[0]!r} stands in an earlier catalogue, too; rename one"
        )

    keys, keys_there = _comparable(table, key, added, key_there, file)
    _check_keys_differ(keys_there, key_there, file)
    partners = pc.index_in(keys, value_set=keys_there, skip_nulls=True)
    without = partners.null_count
    if without == len(keys):
        raise UserError(
            f"{file}: no {key_there} is any row's {key}, such as {_examples(keys)}; here it is "
            f"such as {_examples(keys_there)}"
        )
    if without:
        logger.info("%s has no partner for %d of %d rows", file, without, len(keys))

    columns: dict[str, Any] = dict(table.columns)
    for name, cells in new_columns.items():
        columns[name] = cells.take(partners)
    existing = [*table.existing, *(name for name in added.existing if name != key_there)]
    return CatalogueTable(columns, existing)


def _comparable(
    table: CatalogueTable, key: str, added: CatalogueTable, key_there: str, file: Path
) -> tuple[pa.Array, pa.Array]:
    """Return two columns of keys as texts, or as numbers where one is of numbers in its file."""
    kinds = [table.columns[key].type, added.columns[key_there].type]
    if all(map(pa.types.is_large_string, kinds)):
        return table.columns[key], added.columns[key_there]

    keys, wrong = table.numbers(key)
    keys_there, wrong_there = added.numbers(key_there)
    if len(wrong) or len(wrong_there):
        return table.texts(key), added.texts(key_there)
    if pa.types.is_integer(keys.type) and pa.types.is_integer(keys_there.type):
        return keys, keys_there

    # Whole numbers may be too large for int64.
    wholes, wholes_there = _wholes(table, key), _wholes(added, key_there)
    if wholes is not None and wholes_there is not None:
        return wholes, wholes_there
    largest = LARGEST_IN_FLOAT32 if pa.float32() in kinds else LARGEST_IN_FLOAT64
    for name, kind, numbers in ((key, kinds[0], keys), (key_there, kinds[1], keys_there)):
        is_large = pc.greater(pc.abs(numbers.cast(pa.float64(), safe=False)), largest)
        if not pa.types.is_floating(kind) and pc.any(is_large).as_py():
            raise UserError(
                f"{file}: {key_there} here is of the type {kinds[1]}, the rows' {key} {kinds[0]}; "
                f"as a float, {name} = {_examples(numbers.filter(is_large))} loses digits. Write "
                "both as whole numbers"
            )
    return keys.cast(pa.float64(), safe=False), keys_there.cast(pa.float64(), safe=False)


def _wholes(table: CatalogueTable, name: str) -> pa.Array | None:
    """Return a column as whole numbers of any size; None for floats, or where one is not whole."""
    column = table.columns[name]
    if pa.types.is_floating(column.type):
        return None
    if pa.types.is_large_string(column.type):
        column = table.words(name)
    try:
        return column.cast(pa.decimal128(DIGITS, 0))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _check_keys_differ(keys: pa.Array, name: str, file: Path) -> None:
    counts = pc.value_counts(keys.drop_null())
    repeated = counts.filter(pc.greater(counts.field(1), 1)).field(0)
    if len(repeated):
        raise UserError(
            f"{file}: {len(repeated):,} values of {name} stand more than once, such as "
            f"{_examples(repeated)}; a join needs one row for each"
        )


def _examples(keys: pa.Array) -> str:
    values = keys.drop_null()[:KEYS_SHOWN].to_pylist()
    return ", ".join(str(value) for value in values) or "nothing"


class Choice(NamedTuple):
    """The rows of a table for which a condition holds, or cannot be asked."""

    table: CatalogueTable
    rows: np.ndarray
    """Their numbers among all rows, (n,)."""
    unasked: dict[int, str]
    """Row among those chosen: why the condition cannot be asked."""
    left_out: int
    """Rows for which it does not hold."""
    unknown: int
    """Rows for which it is unknown, as a value is missing."""


def choose_rows(table: CatalogueTable, condition: str | None) -> Choice:
    """Return the rows for which a condition holds; None: all of them."""
    if condition is None:
        rows = np.arange(len(table))
        return Choice(table, rows, {}, left_out=0, unknown=0)

    verdict = evaluate_condition(condition, table, "where")
    is_wrong = np.zeros(len(table), dtype=bool)
    is_wrong[list(verdict.wrong)] = True
    is_chosen = verdict.truth == 1
    rows = np.flatnonzero(is_chosen | is_wrong)

    unasked = {}
    for row, reason in verdict.wrong.items():
        place = np.searchsorted(rows, row)
        unasked[int(place)] = reason

    is_left_out = verdict.truth == 0
    is_unknown = verdict.truth == -1
    return Choice(
        table=table.take(rows),
        rows=rows,
        unasked=unasked,
        left_out=int(is_left_out.sum()),
        unknown=int((is_unknown & ~is_wrong).sum()),
    )


def tell_choice(condition: str | None, chosen: int, left_out: int, unknown: int) -> None:
    """Log how many rows a condition leaves out. Raises UserError when none is left."""
    if condition is None:
        return
    if not chosen:
        total = left_out + unknown
        raise UserError(f"where = {condition}: holds for none of {total:,} rows")
    logger.info(
        "where = %s leaves out %d rows, and %d for which it is unknown",
        *(condition, left_out, unknown),
    )

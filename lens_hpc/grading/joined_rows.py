"""Graded candidates among the rows of a split: images and columns, a block at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import ID
from lens_hpc.dataset.positions import find_position_columns
from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock, encode_texts

COLUMNS = (
    "images",
    "features",
    "labels",
    "ids",
    "groups",
    "sources",
    "targets",
    "weights",
)


def copied_blocks(reader: ColumnReader) -> Iterator[RowBlock]:
    """Yield all rows of a split as they are. Raises UserError for a block that is damaged."""
    for start in range(0, len(reader), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(reader)))
        reader.check_blocks(rows)
        yield RowBlock(**{name: reader.take(name, rows) for name in COLUMNS})
        reader.forget()


class AddedRows(NamedTuple):
    """Candidates that join a split, M of them."""

    candidates: ColumnReader
    rows: np.ndarray
    """(M,) their rows there."""
    columns: dict[str, np.ndarray]
    """All COLUMNS but the images, (M, ...) each."""

    def take(self, column: str, numbers: np.ndarray) -> np.ndarray:
        """Return a column of some of them, by numbers from 0 to M - 1."""
        if column != "images":
            return self.columns[column][numbers]
        rows = self.rows[numbers]
        self.candidates.check_blocks(rows)
        return self.candidates.take("images", rows)


def add_rows(
    candidates: ColumnReader, added: pd.DataFrame, features: tuple[str, ...], grouped: bool
) -> AddedRows:
    """Return the rows that join a split with these features.

    `added` has their row, id, label, target and weight. In a dataset with groups, each is a group
    of its own.
    """
    rows = added["row"].to_numpy()
    there = candidates.manifest.features
    chosen = [there.index(name) for name in features]
    ids = np.array(added["id"].tolist(), dtype=str)
    columns = {
        "features": candidates.take("features", rows)[:, chosen],
        "labels": added["label"].to_numpy(np.int8),
        "ids": encode_texts(ids),
        "groups": encode_texts(ids if grouped else np.full(len(ids), "")),
        "sources": candidates.take("sources", rows),
        "targets": added["target"].to_numpy(np.float32),
        "weights": added["weight"].to_numpy(np.float32),
    }
    return AddedRows(candidates, rows, columns)


def joined_blocks(reader: ColumnReader, added: AddedRows, seed: int) -> Iterator[RowBlock]:
    """Yield the rows of a split in their order, and those that join it at random among them.

    So any run of rows stays a fair sample. Raises UserError for a block that is damaged.
    """
    total = len(reader) + len(added.rows)
    is_added = np.zeros(total, dtype=bool)
    is_added[np.random.default_rng(seed).permutation(total)[: len(added.rows)]] = True
    # The number of each row among those of its own kind.
    numbers = np.where(is_added, np.cumsum(is_added), np.cumsum(~is_added)) - 1

    for start in range(0, total, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        is_new = is_added[block]
        old, new = numbers[block][~is_new], numbers[block][is_new]
        reader.check_blocks(old)
        yield RowBlock(
            **{
                name: _merged(reader.take(name, old), added.take(name, new), is_new)
                for name in COLUMNS
            }
        )
        reader.forget()


def _merged(old: np.ndarray, new: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """Return old and new values, each kind in its order; texts are as long as the longer ones."""
    merged = np.empty((len(is_new), *old.shape[1:]), max(old.dtype, new.dtype, key=_bytes_of))
    merged[~is_new] = old
    merged[is_new] = new
    return merged


def _bytes_of(dtype: np.dtype) -> int:
    return dtype.itemsize


# ---- the table beside the shards ----


def join_kept_columns(kept: pd.DataFrame, beside: pd.DataFrame) -> pa.Table | None:
    """Return the columns that a dataset keeps, by id, with rows for candidates.

    The candidates have the columns `beside` them. They get those that the dataset keeps, too, with
    the same kind of values, and their positions under the names that these have there. None where
    nothing is kept.
    """
    there = find_position_columns(beside.columns)
    here = find_position_columns(kept.columns)
    if there and here:
        beside = beside.rename(columns=dict(zip(there, here, strict=True)))

    positions = here or there or ()
    table, added = table_by_id(kept), table_by_id(beside)
    names = [
        name
        for name in added.column_names
        if name in positions or (name in table.column_names and _are_alike(name, table, added))
    ]
    if len(table.column_names) == 1 and len(names) == 1:
        return None
    return pa.concat_tables([table, added.select(names)], promote_options="permissive")


def table_by_id(rows: pd.DataFrame) -> pa.Table:
    """Return a table of rows, whose index is their id, for the file beside the shards."""
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata()
    return table.add_column(0, ID, pa.array(rows.index.tolist(), pa.string()))


def _are_alike(name: str, one: pa.Table, other: pa.Table) -> bool:
    """Say whether a column of two tables can be one: of numbers, of texts, or of one type."""
    kinds = [_kind(table.schema.field(name).type) for table in (one, other)]
    return kinds[0] == kinds[1]


def _kind(type_: pa.DataType) -> Any:
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return "number"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "text"
    return type_

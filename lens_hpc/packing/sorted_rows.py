"""Rows of a catalogue on disk, sorted by tile, of which those of one tile are read at a time.

The catalogue comes in tables of some hundred thousand rows. Each is sorted by tile, with its rows
in order within a tile, and appended to one Arrow file that is mapped later. So the rows of a tile
are a slice of each table.

    rows.arrow      a record batch for each table: the rows, sorted by tile
    slices.npy      tile, batch, first row and number of rows of each slice, sorted by tile
"""

import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_hpc.packing.cells import common_type, with_type

ROWS = "rows.arrow"
SLICES = "slices.npy"
SLICE = np.dtype(
    [
        ("tile", "<i4"),
        ("batch", "<i4"),
        ("start", "<i4"),
        ("count", "<i4"),
    ]
)
FEATURE = "feature "
KEPT = "kept "


class CatalogueRows(NamedTuple):
    """N rows of a catalogue, in its order."""

    ids: pa.Array
    """(N,) texts."""
    positions: np.ndarray
    """Right ascension and declination, (N, 2); NaN where there is none. *Unit: degrees, ICRS*"""
    features: np.ndarray
    """(N, F) float32, NaN where a value is missing."""
    kept: pa.Table
    """The columns that are carried through."""
    reasons: dict[int, str]
    """Row, from 0: why it has no cutout."""


class SortedTable(NamedTuple):
    """The N rows of one table, sorted by tile."""

    rows: pa.RecordBatch
    """Columns id, row (its number in the catalogue), ra, dec, reason (null without one), a feature
    for each of FEATURE + name, and a kept column for each of KEPT + name."""
    tiles: np.ndarray
    """Number of the tile of each row, (N,), growing."""


# ---- writing ----


def write_sorted(folder: Path, tables: Iterator[SortedTable]) -> None:
    """Write sorted tables, of which there is at least one, and where the rows of each tile are."""
    first = next(tables)
    schema = first.rows.schema
    slices = []
    with pa.ipc.new_file(str(folder / ROWS), schema) as writer:
        for number, table in enumerate(chain([first], tables)):
            writer.write_batch(table.rows)
            slices.append(_slices_of(number, table.tiles))

    joined = np.concatenate(slices)
    by_tile = np.argsort(joined["tile"], kind="stable")
    np.save(folder / SLICES, joined[by_tile])


def _slices_of(batch: int, tiles: np.ndarray) -> np.ndarray:
    """Return where the rows of each tile are, given the tile of each row, (N,), growing."""
    numbers, starts, counts = np.unique(
        tiles,
        return_index=True,
        return_counts=True,
    )
    slices = np.empty(len(numbers), SLICE)
    slices["tile"] = numbers
    slices["batch"] = batch
    slices["start"] = starts
    slices["count"] = counts
    return slices


# ---- reading ----


class SortedRows:
    """The rows that `write_sorted` has written to a folder.

    Attribute `types` names the kept columns of texts that hold numbers, and which type these have.
    """

    def __init__(self, folder: Path) -> None:
        self.types: dict[str, str] = {}
        mapped = pa.memory_map(str(folder / ROWS))
        reader = pa.ipc.open_file(mapped)
        self._batches = []
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            self._batches.append(batch)
        names = reader.schema.names
        self._features = [name for name in names if name.startswith(FEATURE)]
        self._kept = [name for name in names if name.startswith(KEPT)]

        self._slices = np.load(folder / SLICES, mmap_mode="r")
        numbers, starts = np.unique(self._slices["tile"], return_index=True)
        self.numbers = numbers
        self._bounds = np.append(starts, len(self._slices))

    def read(self, tile: int) -> CatalogueRows:
        """Return the rows of a tile, counting those that have any."""
        table = self._read_table(tile)
        right_ascensions = table["ra"].to_numpy()
        declinations = table["dec"].to_numpy()

        features = np.empty((len(table), len(self._features)), dtype=np.float32)
        for number, name in enumerate(self._features):
            features[:, number] = table[name].to_numpy()

        kept = {}
        for column in self._kept:
            name = column.removeprefix(KEPT)
            kept[name] = self._typed(name, table[column])

        reasons = table["reason"]
        bad_rows = np.flatnonzero(reasons.is_valid())
        texts = reasons.drop_null().to_pylist()
        return CatalogueRows(
            ids=_in_one_piece(table["id"]),
            positions=np.stack([right_ascensions, declinations], axis=1),
            features=features,
            kept=pa.table(kept),
            reasons=dict(zip(bad_rows.tolist(), texts, strict=True)),
        )

    def _read_table(self, tile: int) -> pa.Table:
        begin = self._bounds[tile]
        end = self._bounds[tile + 1]
        pieces = []
        for piece in self._slices[begin:end].tolist():
            _, number, start, count = piece
            batch = self._batches[number]
            pieces.append(batch.slice(start, count))
        return pa.Table.from_batches(pieces)

    def _typed(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        """Return a kept column with the type that all of it has."""
        whole = _in_one_piece(column)
        if name not in self.types:
            return whole
        data_type = pa.type_for_alias(self.types[name])
        return with_type(whole, data_type)

    def decide_types(self) -> None:
        """Find out which kept columns of texts hold nothing but numbers, in all rows."""
        for column in self._kept:
            pieces = [batch[column] for batch in self._batches]
            data_type = common_type(pieces)
            if data_type != pieces[0].type:
                name = column.removeprefix(KEPT)
                self.types[name] = str(data_type)

    def id_of_row(self, row: int) -> str:
        """Return the id in a row of the catalogue, for a message."""
        for batch in self._batches:
            rows = batch["row"].to_numpy()
            places = np.flatnonzero(rows == row)
            if len(places):
                place = int(places[0])
                return str(batch["id"][place])
        raise IndexError(row)


def _in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)


# ---- what rows are, as a number ----


def digest_of(rows: CatalogueRows) -> str:
    """Return the SHA-256 of the content of rows, however their columns are held in memory."""
    digest = hashlib.sha256()
    for array in (rows.positions, rows.features):
        shape = str(array.shape)
        digest.update(shape.encode())
        digest.update(array.tobytes())

    bad_rows = list(rows.reasons)
    reasons = list(rows.reasons.values())
    columns = {
        "id": rows.ids,
        "bad row": pa.array(bad_rows, pa.int64()),
        "reason": pa.array(reasons, pa.string()),
    }
    for name in rows.kept.column_names:
        columns[KEPT + name] = _in_one_piece(rows.kept[name])
    for name, column in columns.items():
        kind = f"{name} {column.type} {len(column)}"
        digest.update(kind.encode())
        for content in _contents(column):
            digest.update(content)
    return digest.hexdigest()


def _contents(column: pa.Array) -> Iterator[bytes]:
    """Yield which cells have a value, and the values: what lies under a null means nothing."""
    is_missing = np.asarray(column.is_null())
    yield is_missing.tobytes()

    values = column.drop_null()
    data_type = values.type
    if pa.types.is_integer(data_type) or pa.types.is_floating(data_type):
        numbers = values.to_numpy(zero_copy_only=False)
        yield numbers.tobytes()
        return

    if not pa.types.is_string(data_type) and not pa.types.is_large_string(data_type):
        # Dates, times and what else there is: rare, so slow is good enough.
        cells = values.to_pylist()
        values = pa.array(map(str, cells), pa.string())
    texts = values.cast(pa.large_string())
    lengths = pc.binary_length(texts)
    yield lengths.to_numpy(zero_copy_only=False).tobytes()
    yield _joined(texts)


def _joined(texts: pa.Array) -> bytes:
    bounds = pa.array([0, len(texts)], pa.int32())
    one_list = pa.ListArray.from_arrays(bounds, texts)
    separator = pa.scalar("", pa.large_string())
    joined = pc.binary_join(one_list, separator)
    return bytes(joined[0].as_buffer())

"""Ids that stand twice, found among more than fit into memory.

Of each id there is a hash of 64 bits on disk. Hashes are sorted table by table, and compared range
by range; where two are equal, the ids themselves are.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

RANGES = 256
"""Ranges of hashes, told apart by the first of their eight bytes."""
BITS_BELOW_FIRST_BYTE = np.uint64(56)
RECORD = np.dtype(
    [
        ("hash", "<u8"),
        ("row", "<i8"),
    ]
)


class RepeatedId(NamedTuple):
    """An id that stands in two rows of a catalogue."""

    id: str
    first_row: int
    second_row: int


class SeenIds:
    """The hashes of the ids of many tables, in a file that is appended to."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._count = 0
        self._bounds: list[np.ndarray] = []
        """For each table, where in the file its ranges begin and end, (RANGES + 1,)."""

    def add(self, ids: np.ndarray, rows: np.ndarray) -> RepeatedId | None:
        """Note the ids of a table, (N,) strings, and their rows, (N,) in growing order.

        Returns one that stands twice in this table.
        """
        objects = ids.astype(object)
        hashes = pd.util.hash_array(objects, categorize=False)
        order = np.argsort(hashes, kind="stable")
        records = np.empty(len(ids), RECORD)
        records["hash"] = hashes[order]
        records["row"] = rows[order]
        with self.file.open("ab") as opened:
            records.tofile(opened)

        edges = np.arange(RANGES + 1, dtype=np.uint64)
        first_bytes = records["hash"] >> BITS_BELOW_FIRST_BYTE
        bounds = np.searchsorted(first_bytes, edges)
        self._bounds.append(self._count + bounds)
        self._count += len(ids)

        def id_of_row(row: int) -> str:
            place = np.searchsorted(rows, row)
            return str(ids[place])

        return _first_repeated(records, id_of_row)

    def find_repeated(self, id_of_row: Callable[[int], str]) -> RepeatedId | None:
        """Return an id that stands twice in all tables; `id_of_row` looks up the id of a row."""
        for records in self._ranges():
            repeated = _first_repeated(records, id_of_row)
            if repeated:
                return repeated
        return None

    def remove(self) -> None:
        """Remove the file."""
        self.file.unlink()

    def _ranges(self) -> Iterator[np.ndarray]:
        """Yield all hashes and their rows, sorted, range by range."""
        if not self._count:
            return
        mapped = np.memmap(self.file, RECORD, "r")
        for number in range(RANGES):
            pieces = []
            for bounds in self._bounds:
                begin, end = bounds[number : number + 2]
                pieces.append(mapped[begin:end])

            records = np.concatenate(pieces)
            order = np.lexsort((records["row"], records["hash"]))
            yield records[order]


def _first_repeated(records: np.ndarray, id_of_row: Callable[[int], str]) -> RepeatedId | None:
    """Return an id that stands twice among sorted hashes and their rows."""
    hashes = records["hash"]
    rows = records["row"]
    is_same = hashes[1:] == hashes[:-1]
    last = -1
    row_of_id: dict[str, int] = {}
    for place in np.flatnonzero(is_same).tolist():
        # Different ids may have the same hash, so all of one hash are looked at together.
        if place != last:
            first_row = int(rows[place])
            row_of_id = {id_of_row(first_row): first_row}
        last = place + 1

        row = int(rows[last])
        name = id_of_row(row)
        if name in row_of_id:
            return RepeatedId(name, row_of_id[name], row)
        row_of_id[name] = row
    return None
